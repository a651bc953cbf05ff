package devices

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// drainSize is how much of the ring goes to the writer at a time.
const drainSize = 4 << 10

// outputRing is the host's side of a transmitter: bytes go in without waiting,
// one goroutine takes them out.
type outputRing struct {
	w       io.Writer
	onRoom  func()        // by the goroutine, after it has made room
	wake    chan struct{} // there is something to do; capacity 1
	dropped atomic.Uint64

	mu       sync.Mutex
	buf      []byte // guarded by mu, as all below
	head, n  int
	inflight int           // bytes taken out, not yet written
	idle     chan struct{} // closed when all is written; nil if nobody waits
	err      error         // the writer's first
	closed   bool
}

func newOutputRing(w io.Writer, size int, onRoom func()) *outputRing {
	return &outputRing{w: w, onRoom: onRoom, wake: make(chan struct{}, 1), buf: make([]byte, size)}
}

// put takes a byte, or drops it if there is no room, and reports whether there
// is room for another burst of a driver, which is one FIFO's worth.
func (o *outputRing) put(b byte) (room bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.n == len(o.buf) {
		o.dropped.Add(1)
		return o.closed // a guest that is still alive isn't held up
	}
	i := o.head + o.n
	if i >= len(o.buf) {
		i -= len(o.buf)
	}
	o.buf[i] = b
	o.n++
	if o.n == 1 {
		o.signal()
	}
	return o.hasRoom()
}

func (o *outputRing) hasRoom() bool { return len(o.buf)-o.n >= uartFIFOSize }

// room is whether a transmitter that fills this ring is ready.
func (o *outputRing) room() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closed || o.hasRoom()
}

func (o *outputRing) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// drain writes what comes until the ring is closed.
func (o *outputRing) drain() {
	chunk := make([]byte, drainSize)
	for range o.wake {
		for {
			n, closed := o.take(chunk)
			if closed {
				return
			}
			if n == 0 {
				break
			}
			o.onRoom()
			o.wrote(n, o.write(chunk[:n]))
		}
	}
}

// write counts what the writer does not take as dropped.
func (o *outputRing) write(p []byte) error {
	n, err := o.w.Write(p)
	if n < len(p) {
		o.dropped.Add(uint64(len(p) - max(n, 0)))
		if err == nil {
			err = io.ErrShortWrite
		}
	}
	return err
}

func (o *outputRing) take(chunk []byte) (n int, closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return 0, true
	}
	first := o.buf[o.head:min(o.head+o.n, len(o.buf))]
	n = copy(chunk, first)
	if n == len(first) {
		n += copy(chunk[n:], o.buf[:o.n-n])
	}
	o.head = (o.head + n) % len(o.buf)
	o.n -= n
	o.inflight = n
	if n == 0 {
		o.release()
	}
	return n, false
}

func (o *outputRing) wrote(n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.inflight = 0
	if o.err == nil {
		o.err = err
	}
}

// release lets flush's callers go. mu is held.
func (o *outputRing) release() {
	if o.idle != nil {
		close(o.idle)
		o.idle = nil
	}
}

func (o *outputRing) flush(ctx context.Context) error {
	o.mu.Lock()
	if o.n+o.inflight == 0 || o.closed {
		defer o.mu.Unlock()
		return o.err
	}
	if o.idle == nil {
		o.idle = make(chan struct{})
	}
	idle := o.idle
	o.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.n+o.inflight == 0 {
			return o.err
		}
		return fmt.Errorf("%d bytes not written: %w", o.n+o.inflight, ctx.Err())
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

func (o *outputRing) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.closed = true
		o.dropped.Add(uint64(o.n))
		o.n = 0
		o.release()
		o.signal()
	}
	return o.err
}
