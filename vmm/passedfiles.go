package vmm

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"microvm/migration"
)

// maxPassed is how many descriptors a client may pass on one connection: a
// migration's channels.
const maxPassed = 2 + migration.MaxConnections

// A passingListener accepts connections of the API on which clients may pass
// descriptors (SCM_RIGHTS, unix(7)).
type passingListener struct{ *net.UnixListener }

func (l passingListener) Accept() (net.Conn, error) {
	c, err := l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return &passingConn{UnixConn: c}, nil
}

// passingConn keeps the descriptors that come with what it reads, until
// somebody takes them or it is closed.
type passingConn struct {
	*net.UnixConn
	mu     sync.Mutex
	files  []*os.File
	closed bool
}

func (c *passingConn) Read(p []byte) (int, error) {
	// Room for a stranger's credentials too, which nobody asked for. What does
	// not fit the kernel closes.
	var oob [256]byte
	n, oobn, _, _, err := c.ReadMsgUnix(p, oob[:])
	if oobn > 0 {
		c.keep(oob[:oobn])
	}
	return max(n, 0), err // -1 with an error
}

// keep takes in the descriptors of a control message; those that are too many
// are closed.
func (c *passingConn) keep(oob []byte) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return // the kernel wrote it; there is nothing to close
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // of another kind
		}
		for _, fd := range fds {
			f := os.NewFile(uintptr(fd), fmt.Sprintf("passed descriptor %d", len(c.files)+1))
			if c.closed || len(c.files) == maxPassed {
				f.Close()
				continue
			}
			c.files = append(c.files, f)
		}
	}
}

func (c *passingConn) take() []*os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	files := c.files
	c.files = nil
	return files
}

func (c *passingConn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	closeFiles(c.take())
	return c.UnixConn.Close()
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func closeConns(conns []net.Conn) {
	for _, c := range conns {
		c.Close()
	}
}

type passingKey struct{}

// withPassing lets a connection's requests take what was passed on it.
func withPassing(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, passingKey{}, c)
}

// passedFiles takes the descriptors that came with a request, or since the last
// that took any.
func passedFiles(r *http.Request) []*os.File {
	c, ok := r.Context().Value(passingKey{}).(*passingConn)
	if !ok {
		return nil
	}
	return c.take()
}

// passed makes connections of the files that came with a request for a migration
// to dest. It takes them over.
func passed(dest migration.Address, connections int, files []*os.File) ([]net.Conn, error) {
	err := dest.CheckPassed(connections)
	if want := dest.Passed(); err == nil && len(files) != want {
		err = fmt.Errorf("%s: %d descriptors came with the request, %d have to (SCM_RIGHTS, with its first byte)", dest, len(files), want)
	}
	if err != nil {
		closeFiles(files)
		return nil, err
	}
	return migration.PassedConns(files)
}
