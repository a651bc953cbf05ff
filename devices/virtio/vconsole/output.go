package vconsole

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// outputSize is how much may wait to be written, besides what is being written.
const outputSize = 16 << 10

// output is what the guest has printed, on its way to a writer that may take its
// time: one goroutine writes.
type output struct {
	w    io.Writer
	room chan struct{} // there may be some; capacity 1
	wake chan struct{} // there is something to write; capacity 1
	lost atomic.Uint64

	mu      sync.Mutex
	pending []byte // guarded by mu, as all below
	writing []byte
	idle    chan struct{} // closed when all is written; nil if nobody waits
	err     error         // the writer's first
	closed  bool
}

func (o *output) init(w io.Writer) {
	o.w, o.room, o.wake = w, make(chan struct{}, 1), make(chan struct{}, 1)
	o.pending, o.writing = make([]byte, 0, outputSize), make([]byte, 0, outputSize)
	go o.drain()
}

// put takes as much of p as there is room for.
func (o *output) put(p []byte) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		o.lost.Add(uint64(len(p)))
		return len(p)
	}
	n := min(len(p), outputSize-len(o.pending))
	o.pending = append(o.pending, p[:n]...)
	if n > 0 {
		signal(o.wake)
	}
	return n
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// drain writes what comes, until the output is closed.
func (o *output) drain() {
	for range o.wake {
		for o.swap() {
			signal(o.room)
			// What the writer does not take is lost, and holds nobody up.
			n, err := o.w.Write(o.writing)
			if n < len(o.writing) {
				o.lost.Add(uint64(len(o.writing) - max(n, 0)))
				if err == nil {
					err = io.ErrShortWrite
				}
			}
			o.wrote(err)
		}
	}
}

// swap makes what is pending what is written next, if there is any.
func (o *output) swap() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pending, o.writing = o.writing[:0], o.pending
	return len(o.writing) > 0
}

func (o *output) wrote(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writing = o.writing[:0]
	if o.err == nil {
		o.err = err
	}
	if len(o.pending) == 0 {
		o.release()
	}
}

// release lets those go that wait in flush. mu is held.
func (o *output) release() {
	if o.idle != nil {
		close(o.idle)
		o.idle = nil
	}
}

// flush waits until all is written.
func (o *output) flush(ctx context.Context) error {
	o.mu.Lock()
	left := len(o.pending) + len(o.writing)
	if left == 0 || o.closed {
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
		return fmt.Errorf("%d bytes not written: %w", left, ctx.Err())
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// close drops what is not written.
func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.closed = true
	o.lost.Add(uint64(len(o.pending)))
	o.pending = o.pending[:0]
	o.release()
	close(o.wake)
}
