package net

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"microvm/devices/virtio"
)

// A receiver brings frames from the tap to a queue.
type receiver struct {
	net  *Net
	file *os.File
	conn syscall.RawConn
	fd   int
	try  func(fd uintptr) bool // attempt, made once

	// queue is the one that is served.
	queue *virtio.Queue
	// mergeable: a frame may take several buffers. need is how much room
	// the longest takes. plain: the header's flags mean nothing to the driver.
	mergeable, plain bool
	need             uint64

	window
	used []virtio.Used
	word [2]byte

	// spill takes what the buffers have no room for. waiting is the length
	// of the frame in it that waits for room, header and all; 0 is none.
	spill   []byte
	waiting int

	err    error // that ends serve
	counts direction
}

func newReceiver(n *Net, f *os.File) (*receiver, error) {
	r := &receiver{net: n, file: f, window: newWindow(), spill: make([]byte, maxFrame)}
	r.try = r.attempt
	var err error
	if r.conn, err = f.SyscallConn(); err != nil {
		return nil, err
	}
	return r, r.conn.Control(func(fd uintptr) { r.fd = int(fd) })
}

// start is for a driver that accepted these features.
func (r *receiver) start(features uint64) {
	r.mergeable = features&featureMergeable != 0
	r.plain = features&featureGuestCsum == 0
	r.need = uint64(headerSize + etherSize + vlanSize + r.net.options.MTU)
	if features&(featureGuestTSO4|featureGuestTSO6) != 0 {
		r.need = maxFrame
	}
	// A file that is closed has no deadline; then nothing waits either.
	_ = r.file.SetReadDeadline(time.Time{})
}

// interrupt ends a wait for the tap.
func (r *receiver) interrupt() { _ = r.file.SetReadDeadline(time.Unix(1, 0)) }

// serve returns when the driver has no buffers, or to come to rest.
func (r *receiver) serve(q *virtio.Queue) error {
	r.queue, r.err = q, nil
	err := r.conn.Read(r.try)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		r.net.complain("the tap cannot be waited for", err)
	}
	return r.err
}

// attempt reads as long as there are frames and room for them. It returns false
// to be called again when the tap has a frame.
func (r *receiver) attempt(uintptr) bool {
	for !r.net.halted.Load() {
		if r.err = r.fill(); r.err != nil || r.count == 0 {
			return true
		}
		if r.waiting > 0 {
			var delivered bool
			if delivered, r.err = r.deliver(); r.err != nil || !delivered {
				return true
			}
			continue
		}
		n, direct, err := r.read()
		switch {
		case errors.Is(err, unix.EAGAIN):
			return false
		case err != nil:
			// It will not get better; a notification has it tried again.
			r.counts.Add(0, -1, err)
			r.net.complain("the tap cannot be read", err)
			return true
		case n <= headerSize:
			r.counts.Add(0, -1, errSize)
			continue
		case direct:
			r.err = r.received(uint64(n))
		default:
			r.waiting = n
			continue
		}
		if r.err != nil {
			return true
		}
	}
	return true
}

// fill takes buffers until there is room for the longest frame, or there are no
// more.
func (r *receiver) fill() error {
	for r.room < r.need && (r.mergeable || r.count == 0) && !r.full() {
		c := r.next()
		ok, err := r.queue.Next(c)
		if err != nil || !ok {
			return err
		}
		if c.WriteLen < headerSize {
			return fmt.Errorf("a receive buffer of %d bytes: the header alone has %d", c.WriteLen, headerSize)
		}
		if err := r.add(c); err != nil {
			return err
		}
	}
	return nil
}

// read reads a frame, into the driver's buffers if they have room for the
// longest, or, without mergeable ones, into the next; else, or while pages of
// them are missing, into the spill.
func (r *receiver) read() (n int, direct bool, err error) {
	rest := unix.Iovec{Base: &r.spill[0], Len: uint64(len(r.spill))}
	v := r.ahead()
	if direct = r.absent == 0 && (!r.mergeable || r.room >= r.need); !direct {
		v = v[len(v):]
	}
	n, err = readv(r.fd, append(v, rest))
	return n, direct, err
}

// received gives the driver a frame that is in its buffers.
func (r *receiver) received(n uint64) error {
	if n > r.room {
		// Longer than it can be, or than a buffer that stands alone is. What
		// there was room for has been written all the same.
		r.written(r.room)
		r.counts.drops.Add(1)
		return nil
	}
	k := r.written(n)
	return r.push(k, n)
}

// deliver copies the frame that waits into the driver's buffers, and reports
// whether it waits no more.
func (r *receiver) deliver() (bool, error) {
	n := uint64(r.waiting)
	if n > r.room {
		if r.mergeable && r.count < r.queue.Size() && !r.full() {
			return false, nil // the driver may have more room some time
		}
		r.waiting = 0
		r.counts.drops.Add(1)
		return true, nil
	}
	left, k := r.spill[:n], 0
	for ; len(left) > 0; k++ {
		c := r.at(k)
		part := left[:min(uint64(len(left)), c.WriteLen)]
		if err := c.WriteAt(part, 0); err != nil {
			return false, err
		}
		left = left[len(part):]
	}
	r.waiting = 0
	return true, r.push(k, n)
}

// push gives back the first k buffers, which have a frame of n bytes.
func (r *receiver) push(k int, n uint64) error {
	first := r.at(0)
	binary.LittleEndian.PutUint16(r.word[:], uint16(k))
	if err := first.WriteAt(r.word[:], headerBuffers); err != nil {
		return err
	}
	if r.plain {
		r.word = [2]byte{}
		if err := first.WriteAt(r.word[:1], headerFlags); err != nil {
			return err
		}
	}
	r.used = r.used[:0]
	for i, left := 0, n; i < k; i++ {
		c := r.at(i)
		part := min(left, c.WriteLen)
		r.used = append(r.used, c.Used(uint32(part)))
		left -= part
	}
	r.counts.Add(n-headerSize, -1, nil)
	r.drop(k)
	return r.queue.PushAll(r.used)
}

// giveBack returns the buffers that were taken ahead. Preconditions: nobody
// serves.
func (r *receiver) giveBack() {
	if r.count > 0 {
		r.queue.Return(r.count)
	}
	r.clear()
}

// forget is for a driver that is gone: no frame waits for it.
func (r *receiver) forget() {
	if r.waiting > 0 {
		r.waiting = 0
		r.counts.drops.Add(1)
	}
}

// mostQueued bounds discard, by more than a tap keeps.
const mostQueued = 4096

// discard throws away what the tap has. Preconditions: nobody serves.
func (r *receiver) discard() {
	for range mostQueued {
		if _, err := unix.Read(r.fd, r.spill); err != nil {
			return
		}
		r.counts.drops.Add(1)
	}
}
