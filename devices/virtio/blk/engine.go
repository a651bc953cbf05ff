package blk

import (
	"math"

	"golang.org/x/sys/unix"
)

// Requests are done in one of two ways.
//
// Reads and writes that O_DIRECT is possible for, while others are under way,
// go through an io_uring: the queue's worker puts them there, as many at once
// as there are, and one goroutine takes what is done. 4 KiB at random from
// ext4, with 32 under way, are about twice as many a second then as by
// goroutines that block in preadv2, each of which the scheduler has to wake
// (BenchmarkRandomRead). With one under way the pool is a little faster.
//
// All else is done by the pool, which may wait: what goes through the host's
// cache, where it is faster, since an io_uring has the kernel's threads do what
// cannot be done at once; flushes and discards; requests while any page of
// guest memory is missing; what an io_uring has done in part; and everything where
// there is no io_uring.

// ringDepth is how many requests have to be under way for the ring to be used.
const ringDepth = 2

// idStop is no request's: it ends reap.
const idStop = math.MaxUint64

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
	d.ring = ring
	d.pool.Go(d.reap)
}

// stopRing ends it. Preconditions: nothing is under way.
func (d *Disk) stopRing() {
	if d.ring != nil {
		d.ring.put(opNop, -1, nil, 0, 0, idStop)
		d.ring.submit()
	}
}

// viaRing puts a request into the ring if it is one for it. It does not wait.
// What is wrong with a request is found out, and said, by perform.
func (d *Disk) viaRing(r *request) bool {
	if d.ring == nil || d.depth.Load() < ringDepth || !r.chain.Whole() {
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
	d.ring.put(op, d.image.directFD, r.vectors, off, flags, uint64(r.index))
	return true
}

// reap takes what the ring has done, and gives it to the driver as much at
// once as there is.
func (d *Disk) reap() {
	var done answers
	for stop := false; !stop; {
		d.ring.wait(func(id uint64, res int32) {
			if id == idStop {
				stop = true
				return
			}
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
			done.add(d, r, kind, n)
		})
		done.send(d)
	}
	d.ring.close()
}
