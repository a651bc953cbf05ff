package migration

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
)

// recordSize is how much a TLS record carries at most, in bytes.
const recordSize = 16 << 10

// secureConn is a channel within TLS. A message that is one Write, and no
// longer than a record, is one record and one system call.
type secureConn struct {
	*tls.Conn
	socket *promptConn

	mu    sync.Mutex // messages are not torn apart
	stage []byte     // what does not fill a record yet; empty between messages
}

// secureDial is the source's side of a handshake on c, whose deadline bounds it.
// host is what was dialled.
func secureDial(c net.Conn, secure func() *tls.Config, host string) (*secureConn, error) {
	config := secure()
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName = serverName(host)
	}
	socket := &promptConn{Conn: c}
	return shakeHands(socket, tls.Client(socket, config))
}

// secureAccept is the destination's side.
func secureAccept(c net.Conn, secure func() *tls.Config) (*secureConn, error) {
	socket := &promptConn{Conn: c}
	return shakeHands(socket, tls.Server(socket, secure()))
}

func shakeHands(socket *promptConn, c *tls.Conn) (*secureConn, error) {
	if err := c.Handshake(); err != nil {
		return nil, err
	}
	return &secureConn{Conn: c, socket: socket, stage: make([]byte, 0, recordSize)}, nil
}

// serverName is what a certificate may call the host of a HOST:PORT.
func serverName(target string) string {
	host, _, err := net.SplitHostPort(target)
	if err != nil || host == "" {
		return "localhost" // as dialling has it
	}
	host, _, _ = strings.Cut(host, "%") // an IPv6 zone is this host's business
	return host
}

// Read gives the end of the connection as io.EOF, whether it was announced
// within TLS or not: an end is never success in this stream, whose own last
// words are what counts.
func (c *secureConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}

func (c *secureConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Conn.Write(p)
}

// Close does not announce the end, which could block.
func (c *secureConn) Close() error { return c.socket.Close() }

// writeBuffers writes bufs as if they were one, in full records but for the
// last. It returns how many bytes of them went out.
func (c *secureConn) writeBuffers(bufs net.Buffers) (n int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { c.stage = c.stage[:0] }()
	write := func(p []byte) bool {
		var m int
		m, err = c.Conn.Write(p)
		n += int64(m)
		return err == nil
	}
	for _, b := range bufs {
		for len(b) > 0 {
			if whole := len(b) &^ (recordSize - 1); len(c.stage) == 0 && whole > 0 {
				if !write(b[:whole]) {
					return n, err
				}
				b = b[whole:]
				continue
			}
			m := min(len(b), recordSize-len(c.stage))
			c.stage = append(c.stage, b[:m]...)
			b = b[m:]
			if len(c.stage) == recordSize {
				if !write(c.stage) {
					return n, err
				}
				c.stage = c.stage[:0]
			}
		}
	}
	if len(c.stage) > 0 {
		write(c.stage)
	}
	return n, err
}

// writeAll writes bufs to c, in as few system calls as c allows.
func writeAll(c net.Conn, bufs net.Buffers) (int64, error) {
	switch c := c.(type) {
	case *secureConn:
		return c.writeBuffers(bufs)
	case *promptConn:
		return bufs.WriteTo(c.Conn) // net.Buffers knows the socket, not what wraps it
	}
	return bufs.WriteTo(c)
}

// socketOf is the socket under a channel.
func socketOf(c net.Conn) net.Conn {
	switch c := c.(type) {
	case *secureConn:
		return c.socket.Conn
	case *promptConn:
		return c.Conn
	}
	return c
}
