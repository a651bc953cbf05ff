package blk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"microvm/devices/virtio"
)

// Types of requests and what becomes of them (section 5.2.6).
const (
	typeIn          = 0
	typeOut         = 1
	typeFlush       = 4
	typeGetID       = 8
	typeDiscard     = 11
	typeWriteZeroes = 13
	typeNone        = 1<<32 - 1 // of ours: none can be made out

	statusOK          = 0
	statusError       = 1
	statusUnsupported = 2

	headerSize = 16 // type 4, reserved 4, sector 8
	rangeSize  = 16 // sector 8, number of sectors 4, flags 4
	flagUnmap  = 1
)

// A request is one chain, from when it is taken to when it is pushed. Requests
// are used again and again.
type request struct {
	index int // in Disk.requests
	// passed is stored before a request goes into the ring and loaded when it
	// has come out: Go's memory model knows of no way through the kernel.
	passed  atomic.Bool
	queue   *virtio.Queue
	chain   virtio.Chain
	began   time.Time
	header  [headerSize]byte
	status  [1]byte
	id      [MaxSerial]byte
	ranges  [maxRanges * rangeSize]byte
	vectors []unix.Iovec
}

// errUnsupported: the driver asks for what this device does not do.
var errUnsupported = errors.New("not supported")

// Serve implements virtio.Backend: it takes what there is to the pool.
func (d *Disk) Serve(q *virtio.Queue) error {
	for {
		r := d.unused()
		ok, err := q.Next(&r.chain)
		if ok && r.chain.WriteLen == 0 {
			ok, err = false, errors.New("a request without room for its status")
		}
		if !ok {
			d.free <- r
			d.submit()
			return err
		}
		r.queue, r.began = q, time.Now()
		d.pending.Add(1)
		switch {
		case !r.chain.Whole() && !r.chain.Request():
			go d.await(r)
		case !d.viaRing(r):
			d.work <- r
		}
	}
}

// await waits for a request's pages where that keeps no other request from the
// pool. There are no more of these goroutines than requests under way.
func (d *Disk) await(r *request) {
	// Why a page will not come is said where it is needed.
	_ = r.chain.Await()
	d.work <- r
}

// unused gives a request that is free. Before it waits for one, what is to make
// one free is begun.
func (d *Disk) unused() *request {
	select {
	case r := <-d.free:
		return r
	default:
		d.submit()
		return <-d.free
	}
}

// release gives a request back that is done.
func (d *Disk) release(r *request) {
	d.free <- r
	d.pending.Done()
}

// do is a goroutine of the pool.
func (d *Disk) do() {
	for r := range d.work {
		kind, bytes, err := d.perform(r)
		if written, ok := d.settle(r, kind, bytes, err); ok {
			if err := r.queue.Push(&r.chain, written); err != nil {
				r.queue.Fail(err)
			}
		}
		d.release(r)
	}
}

// complain logs the first failed request, the second, the fourth, and so on: a
// guest can fail as many as it likes.
func (d *Disk) complain(err error) {
	if n := d.counts.errors.Load(); n&(n-1) == 0 {
		d.options.Log.Warn("a disk request failed", "disk", d.image.path, "error", err, "failed", n)
	}
}

// perform does what a request asks for. bytes is how much data that was.
func (d *Disk) perform(r *request) (kind uint32, bytes uint64, err error) {
	kind, sector, err := r.parse()
	if err != nil {
		return typeNone, 0, err
	}
	switch kind {
	case typeIn:
		return kind, r.dataLen(), d.read(r, sector)
	case typeOut:
		return kind, r.dataLen(), d.write(r, sector)
	case typeFlush:
		return kind, 0, d.image.sync()
	case typeGetID:
		return kind, 0, d.identify(r)
	case typeDiscard, typeWriteZeroes:
		bytes, err = d.clear(r, kind)
		return kind, bytes, err
	}
	return kind, 0, fmt.Errorf("request of type %d: %w", kind, errUnsupported)
}

// parse reads the header.
func (r *request) parse() (kind uint32, sector uint64, err error) {
	if err := r.chain.ReadAt(r.header[:], 0); err != nil {
		return 0, 0, fmt.Errorf("read a request's header: %w", err)
	}
	return r.kind(), binary.LittleEndian.Uint64(r.header[8:]), nil
}

// kind is what the header that was read asks for.
func (r *request) kind() uint32 { return binary.LittleEndian.Uint32(r.header[:]) }

// dataLen is how many bytes a read or write is to move.
func (r *request) dataLen() uint64 {
	if r.kind() == typeIn {
		return r.chain.WriteLen - 1
	}
	return r.chain.ReadLen - headerSize
}

// extent checks that n bytes from a sector on are on the disk, and whole
// sectors, and gives the byte that they begin at.
func (d *Disk) extent(sector, n uint64) (off uint64, err error) {
	have := d.sectors.Load()
	if n%sectorSize != 0 {
		return 0, fmt.Errorf("%d bytes are no whole sectors of %d", n, sectorSize)
	}
	if n /= sectorSize; n > have || sector > have-n {
		return 0, fmt.Errorf("%d sectors from %d on: the disk has %d", n, sector, have)
	}
	return sector * sectorSize, nil
}

// prepareRead gathers where a read goes to, and says where it comes from. No
// vectors mean that there is nothing to read.
func (d *Disk) prepareRead(r *request, sector uint64) (off uint64, err error) {
	r.vectors = r.vectors[:0]
	n := r.dataLen()
	if off, err = d.extent(sector, n); err == nil {
		r.vectors, err = r.chain.WriteVectors(r.vectors, 0, n)
	}
	return off, err
}

func (d *Disk) read(r *request, sector uint64) error {
	off, err := d.prepareRead(r, sector)
	if err != nil || len(r.vectors) == 0 {
		return err
	}
	err = d.image.transfer(r.vectors, off, false, 0)
	r.chain.MarkWritten(0, r.dataLen()) // part of it even after an error
	return err
}

// prepareWrite is prepareRead the other way.
func (d *Disk) prepareWrite(r *request, sector uint64) (off uint64, err error) {
	r.vectors = r.vectors[:0]
	n := r.dataLen()
	if off, err = d.extent(sector, n); err == nil {
		r.vectors, err = r.chain.ReadVectors(r.vectors, headerSize, n)
	}
	return off, err
}

func (d *Disk) write(r *request, sector uint64) error {
	if d.image.readOnly {
		return errReadOnly
	}
	off, err := d.prepareWrite(r, sector)
	if err != nil || len(r.vectors) == 0 {
		return err
	}
	flags := 0
	if d.durable.Load() {
		flags = unix.RWF_DSYNC
	}
	return d.image.transfer(r.vectors, off, true, flags)
}

var errReadOnly = errors.New("the disk is read-only")

// identify answers with the serial number, padded with zeros.
func (d *Disk) identify(r *request) error {
	clear(r.id[:])
	copy(r.id[:], d.options.Serial)
	return r.chain.WriteAt(r.id[:min(MaxSerial, r.chain.WriteLen-1)], 0)
}

// clear discards the ranges of a request, or makes them zero. None is touched
// unless all are right.
func (d *Disk) clear(r *request, kind uint32) (bytes uint64, err error) {
	n := r.chain.ReadLen - headerSize
	switch {
	case d.image.readOnly:
		return 0, errReadOnly
	case n == 0 || n%rangeSize != 0 || n > uint64(len(r.ranges)):
		return 0, fmt.Errorf("%d bytes of ranges: have to be 1 to %d of %d each", n, maxRanges, rangeSize)
	}
	if err := r.chain.ReadAt(r.ranges[:n], headerSize); err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	for _, do := range []bool{false, true} {
		for b := r.ranges[:n]; len(b) > 0; b = b[rangeSize:] {
			sectors, flags := le.Uint32(b[8:]), le.Uint32(b[12:])
			off, err := d.extent(le.Uint64(b), uint64(sectors)*sectorSize)
			switch {
			case err != nil:
				return 0, err
			case flags&^flagUnmap != 0, kind == typeDiscard && flags != 0:
				return 0, fmt.Errorf("flags %#x of a range: %w", flags, errUnsupported)
			case sectors > maxRangeSectors:
				return 0, fmt.Errorf("a range of %d sectors: %d at most", sectors, maxRangeSectors)
			case !do || sectors == 0:
				continue
			}
			length := uint64(sectors) * sectorSize
			if kind == typeDiscard {
				err = d.image.discard(off, length)
			} else {
				err = d.image.zero(off, length, flags&flagUnmap != 0)
			}
			if err != nil {
				return 0, err
			}
			bytes += length
		}
	}
	if d.durable.Load() {
		err = d.image.sync()
	}
	return bytes, err
}
