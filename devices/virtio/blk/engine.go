package blk

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Requests are done in one of two ways.
//
// Reads and writes that O_DIRECT is possible for go through an io_uring: the
// queue's worker puts them there, as many at once as there are, and gives the
// driver what the kernel has done before it came back, which is all of them if
// the disk is in memory: no other thread wakes for them. For the rest a
// goroutine waits. A large request is submitted by itself, so that the guest is
// at work on one while the next is done.
//
// All else is done by the pool, which may wait: what goes through the host's
// cache, where it is faster, since an io_uring has the kernel's threads do what
// cannot be done at once; flushes and discards; requests while any page of
// guest memory is missing; what an io_uring has done in part; and everything where
// there is no io_uring.

// large is how many bytes make a request large: to copy them takes several
// times as long as the system call.
const large = 64 << 10

// An engine is an io_uring and who takes from it.
type engine struct {
	ring *uring
	// under is how many requests have been put and not taken.
	under atomic.Int32
	// arm has the one who waits do so.
	arm chan struct{}

	taking sync.Mutex
	done   answers // guarded by taking
}

// startRing makes the ring, if that is possible and there is a use for it.
func (d *Disk) startRing() {
	if d.image.direct == nil {
		return
	}
	ring, err := newRing(underWay)
	if err != nil {
		d.options.Log.Info("no io_uring: requests are done by threads alone", "disk", d.image.path, "error", err)
		return
	}
	d.engine = &engine{ring: ring, arm: make(chan struct{}, 1)}
	d.pool.Go(d.awaitRing)
}

// stopRing ends it. Preconditions: nothing is under way.
func (d *Disk) stopRing() {
	if d.engine != nil {
		close(d.engine.arm)
	}
}

// viaRing puts a request into the ring if it is one for it. It does not wait.
// What is wrong with a request is found out, and said, by perform.
func (d *Disk) viaRing(r *request) bool {
	if d.engine == nil || !r.chain.Whole() {
		return false
	}
	kind, sector, err := r.parse()
	if err != nil {
		return false
	}
	var off uint64
	op, flags := uint8(opReadv), uint32(0)
	switch {
	case kind == typeIn:
		off, err = d.prepareRead(r, sector)
	case kind == typeOut && !d.image.readOnly:
		op = opWritev
		off, err = d.prepareWrite(r, sector)
		if d.durable.Load() {
			flags = unix.RWF_DSYNC
		}
	default:
		return false
	}
	if err != nil || len(r.vectors) == 0 || len(r.vectors) > maxVectors || !d.image.aligned(r.vectors, off) {
		return false
	}
	r.passed.Store(true)
	d.engine.under.Add(1)
	d.engine.ring.put(op, d.image.directFD, r.vectors, off, flags, uint64(r.index))
	if r.dataLen() >= large {
		d.submit()
	}
	return true
}

// submit begins what was put into the ring, and gives the driver what has ended
// at once.
func (d *Disk) submit() {
	if d.engine == nil {
		return
	}
	d.engine.ring.submit()
	// Whoever takes looks again when it has let go of the lock.
	for d.engine.ring.any() && d.engine.taking.TryLock() {
		d.take()
		d.engine.taking.Unlock()
	}
	if d.engine.under.Load() > 0 {
		select {
		case d.engine.arm <- struct{}{}:
		default: // it will look
		}
	}
}

// awaitRing waits for what was not done at once.
func (d *Disk) awaitRing() {
	for range d.engine.arm {
		for d.engine.under.Load() > 0 {
			d.engine.ring.wait()
			d.engine.taking.Lock()
			d.take()
			d.engine.taking.Unlock()
		}
	}
	d.engine.ring.close()
}

// take takes what the ring has done, and gives it to the driver as much at once
// as there is. taking is held.
func (d *Disk) take() {
	d.engine.ring.take(func(id uint64, res int32) {
		d.engine.under.Add(-1)
		r := d.requests[id]
		r.passed.Load()
		kind, n := r.kind(), r.dataLen()
		if int64(res) != int64(n) {
			d.work <- r // it knows what to do about it; there is room for all
			return
		}
		if kind == typeIn {
			r.chain.MarkWritten(0, n)
		}
		d.counts.ring.Add(1)
		d.engine.done.add(d, r, kind, n)
	})
	d.engine.done.send(d)
}
