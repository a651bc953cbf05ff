package blk

import (
	"encoding/binary"
	"errors"
	"fmt"
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
		r := <-d.free
		ok, err := q.Next(&r.chain)
		if ok && r.chain.WriteLen == 0 {
			ok, err = false, errors.New("a request without room for its status")
		}
		if !ok {
			d.free <- r
			return err
		}
		r.queue, r.began = q, time.Now()
		d.pending.Add(1)
		d.work <- r
	}
}

// do is a goroutine of the pool.
func (d *Disk) do() {
	for r := range d.work {
		d.finish(r)
		d.free <- r
		d.pending.Done()
	}
}

// finish does a request and gives its chain back.
func (d *Disk) finish(r *request) {
	kind, bytes, err := d.perform(r)
	r.status[0] = statusOK
	switch {
	case errors.Is(err, errUnsupported):
		r.status[0] = statusUnsupported
	case err != nil:
		r.status[0] = statusError
	}
	d.counts.add(kind, bytes, time.Since(r.began), err)
	if err != nil {
		d.complain(err)
	}
	written := uint32(0)
	if err == nil {
		written = uint32(r.chain.WriteLen) // the status comes last
	}
	if err := r.chain.WriteAt(r.status[:], r.chain.WriteLen-1); err != nil {
		r.queue.Fail(fmt.Errorf("write a request's status: %w", err))
		return
	}
	if err := r.queue.Push(&r.chain, written); err != nil {
		r.queue.Fail(err)
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
	if err := r.chain.ReadAt(r.header[:], 0); err != nil {
		return typeNone, 0, fmt.Errorf("read a request's header: %w", err)
	}
	le := binary.LittleEndian
	kind = le.Uint32(r.header[:])
	sector := le.Uint64(r.header[8:])
	switch kind {
	case typeIn:
		bytes = r.chain.WriteLen - 1
		return kind, bytes, d.read(r, sector, bytes)
	case typeOut:
		bytes = r.chain.ReadLen - headerSize
		return kind, bytes, d.write(r, sector, bytes)
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

func (d *Disk) read(r *request, sector, n uint64) error {
	off, err := d.extent(sector, n)
	if err != nil || n == 0 {
		return err
	}
	if r.vectors, err = r.chain.WriteVectors(r.vectors[:0], 0, n); err != nil {
		return err
	}
	err = d.image.transfer(r.vectors, off, false, 0)
	r.chain.MarkWritten(0, n) // part of it even after an error
	return err
}

func (d *Disk) write(r *request, sector, n uint64) error {
	if d.image.readOnly {
		return errReadOnly
	}
	off, err := d.extent(sector, n)
	if err != nil || n == 0 {
		return err
	}
	if r.vectors, err = r.chain.ReadVectors(r.vectors[:0], headerSize, n); err != nil {
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
