package main

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"microvm/migration"
	"microvm/migration/wire"
)

// A relay stands between a source and a destination: a network that a test can
// hold up at a message of the main channel, and cut.
type relay struct {
	t    *testing.T
	ln   net.Listener
	dest string // HOST:PORT
	addr string // for microvm migrate

	held    chan struct{} // closed when the message is here
	release chan struct{} // close it to let the message pass
	stop    string        // the message's name

	mu      sync.Mutex
	conns   []net.Conn
	holding sync.Once
	closing sync.WaitGroup
}

// newRelay relays to dest and holds the first message called stop, whichever
// way it goes. What comes after it waits behind it; the urgent channel and the
// other direction flow on.
func newRelay(t *testing.T, dest, stop string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{
		t: t, ln: ln, dest: strings.TrimPrefix(dest, "tcp:"), addr: migration.ListenAddress(ln).String(),
		held: make(chan struct{}), release: make(chan struct{}), stop: stop,
	}
	r.closing.Go(r.serve)
	t.Cleanup(func() {
		ln.Close()
		r.cut()
		r.holding.Do(func() {}) // nothing is held any more
		select {
		case <-r.release:
		default:
			close(r.release)
		}
		r.closing.Wait()
	})
	return r
}

func (r *relay) serve() {
	for {
		c, err := r.ln.Accept()
		if err != nil {
			return // closed
		}
		d, err := net.Dial("tcp", r.dest)
		if err != nil {
			c.Close() // the source sees what it would see of the destination
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, c, d)
		r.mu.Unlock()
		r.closing.Go(func() { r.pass(c, d) })
	}
}

// pass relays one channel until either end closes it.
func (r *relay) pass(source, dest net.Conn) {
	hello, err := wire.ReadHello(source)
	if err != nil {
		source.Close()
		dest.Close()
		return
	}
	forward, back := r.raw, r.raw
	if hello.Role == wire.RoleMain {
		forward, back = r.forward, r.back
	}
	var both sync.WaitGroup
	both.Go(func() {
		if _, err := dest.Write(hello.Append(nil)); err == nil {
			forward(source, dest)
		}
		dest.Close()
		source.Close()
	})
	back(dest, source)
	source.Close()
	dest.Close()
	both.Wait()
}

func (r *relay) raw(from, to net.Conn) { _, _ = io.Copy(to, from) }

// forward relays messages to the destination.
func (r *relay) forward(from, to net.Conn) {
	for {
		h, err := wire.ReadHeader(from)
		if err != nil {
			return
		}
		r.at(h.Type.String())
		if _, err := to.Write(wire.AppendHeader(nil, h)); err != nil {
			return
		}
		if _, err := io.CopyN(to, from, int64(h.Length)); err != nil {
			return
		}
	}
}

// back relays the answer to the hello, and then the return path.
func (r *relay) back(from, to net.Conn) {
	w, err := wire.ReadWelcome(from)
	if err != nil {
		return
	}
	if _, err := to.Write(w.Append(nil)); err != nil {
		return
	}
	for buf := make([]byte, wire.MaxReturnBody); ; {
		t, body, err := wire.ReadReturn(from, buf)
		if err != nil {
			return
		}
		r.at(t.String())
		head := binary.BigEndian.AppendUint16(nil, uint16(t))
		head = binary.BigEndian.AppendUint16(head, uint16(len(body)))
		if _, err := to.Write(slices.Concat(head, body)); err != nil {
			return
		}
	}
}

// at holds the relay up at the first message that the test wants held.
func (r *relay) at(message string) {
	if message == r.stop {
		r.holding.Do(func() {
			close(r.held)
			<-r.release
		})
	}
}

// cut breaks every connection.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
}
