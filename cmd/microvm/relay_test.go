package main

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"microvm/migration"
	"microvm/migration/wire"
)

// A relay stands between a source and a destination: a network that a test can
// hold up at a message of the main channel, or at pages that nobody asked for, and
// cut.
type relay struct {
	t    *testing.T
	ln   net.Listener
	dest string // HOST:PORT
	addr string // for microvm migrate

	stop    string        // the message's name
	after   int64         // how many bytes pass to the destination in any case
	passed  atomic.Int64  // of messages to the destination, but for the urgent channel's
	damage  atomic.Int64  // the first run of pages after so many loses a bit; 0 or less: none does
	held    chan struct{} // closed when it is here
	release chan struct{} // closed when it may pass

	holding, letting sync.Once
	mu               sync.Mutex
	conns            []net.Conn
	relaying         sync.WaitGroup
}

// newRelay relays to dest and holds the first message called stop, whichever
// way it goes, once after bytes have gone to the destination. What follows it
// waits behind it, on whatever channel if it is pages; the urgent channel and the
// other direction flow on.
func newRelay(t *testing.T, dest, stop string, after int64) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{
		t: t, ln: ln, dest: strings.TrimPrefix(dest, "tcp:"), addr: migration.ListenAddress(ln).String(),
		held: make(chan struct{}), release: make(chan struct{}), stop: stop, after: after,
	}
	r.relaying.Go(r.serve)
	t.Cleanup(func() {
		ln.Close()
		r.cut()
		r.letPass()
		r.relaying.Wait()
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
		r.relaying.Go(func() { r.pass(c, d) })
	}
}

// pass relays one channel. As on a real network, what one end has said before
// it goes still comes to the other.
func (r *relay) pass(source, dest net.Conn) {
	defer source.Close()
	defer dest.Close()
	hello, err := wire.ReadHello(source)
	if err != nil {
		return
	}
	if _, err := dest.Write(hello.Append(nil)); err != nil {
		return
	}
	forward, back := r.raw, r.raw
	switch hello.Role {
	case wire.RoleMain:
		forward, back = r.forward, r.back
	case wire.RoleMulti:
		forward = r.forwardBulk
	}
	var both sync.WaitGroup
	both.Go(func() { forward(source, dest); hangUp(source, dest) })
	back(dest, source)
	hangUp(dest, source)
	both.Wait()
}

// hangUp tells one end that the other has gone, once that says nothing more.
func hangUp(from, to net.Conn) {
	_, _ = io.Copy(io.Discard, from) // what to did not take
	_ = to.(*net.TCPConn).CloseWrite()
}

func (r *relay) raw(from, to net.Conn) { _, _ = io.Copy(to, from) }

// forward relays messages of the main channel to the destination.
func (r *relay) forward(from, to net.Conn) {
	r.messages(from, to, func(wire.Type) bool { return true })
}

// forwardBulk relays those of a multi channel, of which pages may be held.
func (r *relay) forwardBulk(from, to net.Conn) {
	r.messages(from, to, func(t wire.Type) bool { return t == wire.TypeRAM })
}

func (r *relay) messages(from, to net.Conn, mayBeHeld func(wire.Type) bool) {
	for {
		h, err := wire.ReadHeader(from)
		if err != nil {
			return
		}
		passed := r.passed.Add(int64(h.Length))
		if passed > r.after && mayBeHeld(h.Type) {
			r.at(h.Type.String())
		}
		if _, err := to.Write(wire.AppendHeader(nil, h)); err != nil {
			return
		}
		if at := r.damage.Load(); h.Type == wire.TypeRAM && h.Length > wire.RAMFixedSize && at > 0 && passed > at && r.damage.CompareAndSwap(at, -1) {
			_, err = io.CopyN(damaging{to}, from, int64(h.Length))
		} else {
			_, err = io.CopyN(to, from, int64(h.Length))
		}
		if err != nil {
			return
		}
	}
}

// damaging flips a bit in the last byte of what is written at a time.
type damaging struct{ io.Writer }

func (d damaging) Write(b []byte) (int, error) {
	b = bytes.Clone(b)
	b[len(b)-1] ^= 8
	return d.Writer.Write(b)
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
		var message bytes.Buffer
		t, _, err := wire.ReadReturn(io.TeeReader(from, &message), buf)
		if err != nil {
			return
		}
		r.at(t.String())
		if _, err := to.Write(message.Bytes()); err != nil {
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

// awaitHeld returns when the message is here.
func (r *relay) awaitHeld() {
	r.t.Helper()
	select {
	case <-r.held:
	case <-time.After(patience):
		r.t.Fatalf("no %s comes", r.stop)
	}
}

// letPass ends the hold-up.
func (r *relay) letPass() { r.letting.Do(func() { close(r.release) }) }

// loseHeld returns when the message is here, and then no line is left between the
// two sides: it never arrives, and nobody comes through again.
func (r *relay) loseHeld() {
	r.t.Helper()
	r.awaitHeld()
	r.ln.Close()
	r.cut()
	r.letPass()
}

// cut breaks every connection.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
}
