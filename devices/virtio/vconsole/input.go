package vconsole

import (
	"context"
	"sync"
	"sync/atomic"

	"microvm/devices/virtio"
)

// inputSize is how much may be typed ahead of the guest.
const inputSize = 4 << 10

// input is what was typed and the guest has not got.
type input struct {
	wake atomic.Pointer[virtio.Queue] // whose worker gives it
	room chan struct{}                // there may be some, or there is a driver; capacity 1

	mu   sync.Mutex
	buf  []byte // guarded by mu, as all below
	open bool   // the device does not rest
	live bool   // there is a driver
}

func (in *input) init() {
	in.room, in.buf = make(chan struct{}, 1), make([]byte, 0, inputSize)
}

func (in *input) start() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.open, in.live = true, true
	in.signal()
}

func (in *input) stop() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.open = false
}

// reset drops what was typed: it was for programs of a driver that is no more.
func (in *input) reset() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.buf, in.live = in.buf[:0], false
	in.signal()
}

func (in *input) isLive() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.live
}

// signal says that there may be room.
func (in *input) signal() {
	select {
	case in.room <- struct{}{}:
	default:
	}
}

// putAll types p, and waits for room.
func (in *input) putAll(ctx context.Context, p []byte) (int, error) {
	done := 0
	for {
		n, live := in.put(p[done:])
		if done += n; done == len(p) || !live {
			return done, nil // whoever types finds another place for the rest
		}
		select {
		case <-in.room:
		case <-ctx.Done():
			return done, ctx.Err()
		}
	}
}

// put types as much of p as there is room for.
func (in *input) put(p []byte) (n int, live bool) {
	in.mu.Lock()
	if in.open {
		n = min(len(p), inputSize-len(in.buf))
	}
	in.buf = append(in.buf, p[:n]...)
	live = in.live
	in.mu.Unlock()
	if q := in.wake.Load(); q != nil && n > 0 {
		q.Wake()
	}
	return n, live
}

// look copies what the guest is to get next.
func (in *input) look(piece []byte) []byte {
	in.mu.Lock()
	defer in.mu.Unlock()
	return piece[:copy(piece, in.buf)]
}

// drop removes what the guest has got.
func (in *input) drop(n int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.buf = append(in.buf[:0], in.buf[n:]...)
	in.signal()
}
