package vsock

import (
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// pumpPiece is how much of a ring is written before the guest hears of it.
const pumpPiece = 64 << 10

// An outlet is where a connection's bytes from the guest go: to a socket, or, as
// long as that is full, into a ring that a goroutine empties.
type outlet struct {
	c      *conn
	window uint32 // how many bytes the guest may have under way
	// forwarded is how many bytes the socket has taken, ever, and told how many
	// of them the guest knows of.
	forwarded, told atomic.Uint32

	// Set once, under Device.mu.
	host *net.UnixConn
	raw  syscall.RawConn
	once func(fd uintptr) bool

	// mu is never held while Device.mu is waited for. It guards what follows.
	mu      sync.Mutex
	ring    []byte // nil before it is needed
	head, n int
	pumping bool // there is a goroutine, as there is while n is not 0
	broken  bool // the host receives no more
	shut    bool // the guest sends no more
	ending  bool // the socket is to be closed once the ring is empty
	vectors []unix.Iovec
	wrote   int
}

func (o *outlet) init(host *net.UnixConn, raw syscall.RawConn) {
	o.host, o.raw = host, raw
	o.once = func(fd uintptr) bool {
		n, err := writev(fd, o.vectors)
		o.wrote = n
		if err != nil && err != unix.EAGAIN {
			o.broken = true
		}
		return true
	}
}

// take takes n bytes of a packet's payload, of which there are so many by the
// guest's credit.
func (o *outlet) take(w *work, n uint32) (err error) {
	// What is missing is waited for here, with no lock.
	if w.vectors, err = w.chain.ReadVectors(w.vectors[:0], headerSize, uint64(n)); err != nil || n == 0 {
		return err
	}
	o.mu.Lock()
	was, done := o.broken, uint32(0)
	if !o.pumping && !o.broken {
		done = o.try(w.vectors)
	}
	switch rest := n - done; {
	case o.broken:
		o.c.d.counts.untaken.Add(uint64(rest))
		done = n
	case rest > 0:
		if err = o.keep(w, headerSize+uint64(done), int(rest)); err == nil && !o.pumping {
			o.pumping = true
			go o.pump()
		}
	}
	breaks := o.broken && !was
	o.mu.Unlock()
	o.forward(done)
	if breaks {
		o.refuse()
	}
	return err
}

// try writes what the socket takes at once. mu is held.
func (o *outlet) try(v []unix.Iovec) uint32 {
	o.vectors, o.wrote = v, 0
	if o.raw.Write(o.once) != nil {
		o.broken = true
	}
	return uint32(o.wrote)
}

// keep puts n bytes of the packet into the ring. mu is held.
func (o *outlet) keep(w *work, off uint64, n int) error {
	if o.ring == nil {
		o.ring = make([]byte, o.window)
	}
	at := (o.head + o.n) % len(o.ring)
	first := min(n, len(o.ring)-at)
	if err := w.chain.ReadAt(o.ring[at:at+first], off); err != nil {
		return err
	}
	if err := w.chain.ReadAt(o.ring[:n-first], off+uint64(first)); err != nil {
		return err
	}
	o.n += n
	return nil
}

// pump empties the ring.
func (o *outlet) pump() {
	for {
		o.mu.Lock()
		if o.n == 0 || o.broken {
			o.pumped()
			return
		}
		piece := o.ring[o.head:min(o.head+o.n, o.head+pumpPiece, len(o.ring))]
		o.mu.Unlock()
		n, err := o.host.Write(piece)
		o.mu.Lock()
		o.head, o.n = (o.head+n)%len(o.ring), o.n-n
		o.broken = err != nil
		o.mu.Unlock()
		o.forward(uint32(n))
	}
}

// pumped ends the pump. mu is held, and released.
func (o *outlet) pumped() {
	lost := o.n
	o.n, o.pumping = 0, false
	broken, ending := o.broken, o.ending
	if o.shut {
		_ = o.host.CloseWrite() // the program may have gone
	}
	if ending {
		_ = o.host.Close()
	}
	o.mu.Unlock()
	o.c.d.counts.untaken.Add(uint64(lost))
	o.forward(uint32(lost))
	switch {
	case ending:
		o.c.d.mu.Lock()
		o.c.d.closed(o.c)
		o.c.d.mu.Unlock()
	case broken:
		o.refuse()
	}
}

// forward counts what the guest need not think of any more, and has it told if
// that is much.
func (o *outlet) forward(n uint32) {
	if n == 0 || o.forwarded.Add(n)-o.told.Load() < o.window/4 {
		return
	}
	o.c.d.mu.Lock()
	defer o.c.d.mu.Unlock()
	if o.c.state == stateOpen {
		o.c.say(opCreditUpdate)
	}
}

// refuse tells the guest that the host receives no more.
func (o *outlet) refuse() {
	o.c.d.mu.Lock()
	defer o.c.d.mu.Unlock()
	o.c.shut(shutReceive)
}

// say writes something of our own to a socket that is empty.
func (o *outlet) say(text []byte) error {
	var n int
	var failed error
	err := o.raw.Write(func(fd uintptr) bool {
		n, failed = unix.Write(int(fd), text)
		return true
	})
	switch {
	case err != nil:
		return err
	case failed == nil && n < len(text):
		return unix.EAGAIN
	}
	return failed
}

// shutSend is a guest that sends no more.
func (o *outlet) shutSend() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shut = true
	if !o.pumping {
		_ = o.host.CloseWrite() // the program may have gone
	}
}

// end closes the socket once the ring is empty, and reports whether it is closed
// now; if not, Device.closed comes.
func (o *outlet) end() (closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ending = true
	if o.pumping {
		_ = o.host.CloseRead() // nobody reads, and the watcher is to see that
		return false
	}
	_ = o.host.Close()
	return true
}

// abort closes the socket whatever is in the ring.
func (o *outlet) abort() { _ = o.host.Close() }
