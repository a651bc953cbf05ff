package virtiotest

import (
	"encoding/binary"
	"sync/atomic"
)

// Flags of descriptors.
const (
	Next     = 1
	Write    = 2
	Indirect = 4
)

// Desc is a descriptor.
type Desc struct {
	GPA         uint64
	Len         uint32
	Flags, Next uint16
}

// Bytes is the descriptor as memory has it.
func (x Desc) Bytes() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(le.AppendUint64(nil, x.GPA), x.Len)
	return le.AppendUint16(le.AppendUint16(b, x.Flags), x.Next)
}

// Buf is one buffer of a request: data for the device to read, or room for so
// many bytes that it may write.
type Buf struct {
	Data []byte
	Room int
	// At, if not 0, is where it is, wherever the others are.
	At uint64
}

// Queue is the driver's side of a virtqueue.
type Queue struct {
	d     *Driver
	Index uint32
	Size  uint16
	// Desc, Avail and Used are the addresses of the three areas.
	Desc, Avail, Used uint64

	free        []uint16
	avail, used uint16 // indices
	kicked      uint16 // avail when it was last weighed whether to kick
	fence       atomic.Uint32
	pending     map[uint16]*request
	// Kicks is how often the driver notified.
	Kicks int
}

type request struct {
	descs []uint16
	rooms []Desc
}

// NewQueue sets a queue up and makes it ready.
func (d *Driver) NewQueue(index uint32, size uint16) *Queue {
	d.T.Helper()
	n := uint64(size)
	q := &Queue{
		d: d, Index: index, Size: size, pending: map[uint16]*request{},
		Desc: d.Alloc(16*n, 16), Avail: d.Alloc(6+2*n, 2), Used: d.Alloc(6+8*n, 4096), // a page that the driver does not write
	}
	d.write(q.Desc, make([]byte, 16*n))
	d.write(q.Avail, make([]byte, 6+2*n))
	d.write(q.Used, make([]byte, 6+8*n))
	for i := range size {
		q.free = append(q.free, i)
	}
	q.Announce()
	if d.Get(0x44) != 1 {
		d.T.Fatalf("queue %d does not get ready", index)
	}
	return q
}

// Announce writes the queue's registers.
func (q *Queue) Announce() {
	d := q.d
	d.Set(0x30, q.Index)
	d.Set(0x38, uint32(q.Size))
	for reg, addr := range map[uint64]uint64{0x80: q.Desc, 0x90: q.Avail, 0xA0: q.Used} {
		d.Set(reg, uint32(addr))
		d.Set(reg+4, uint32(addr>>32))
	}
	d.Set(0x44, 1)
}

func (q *Queue) eventIdx() bool { return q.d.Features&(1<<29) != 0 }

// Put writes a descriptor of the queue's table.
func (q *Queue) Put(i uint16, x Desc) { q.d.write(q.Desc+16*uint64(i), x.Bytes()) }

// Free is how many descriptors are free.
func (q *Queue) Free() int { return len(q.free) }

// Add makes a request available whose buffers begin at base, one after the
// other with gaps of pad bytes, and returns its head, and where its memory
// ends. From buffer number indirect on they are in an indirect table; none is
// if that is negative.
func (q *Queue) Add(base, pad uint64, indirect int, bufs ...Buf) (head uint16, end uint64) {
	d, r := q.d, &request{}
	var descs []Desc
	at := base
	for _, b := range bufs {
		x := Desc{GPA: at, Len: uint32(len(b.Data))}
		if b.At != 0 {
			x.GPA = b.At
		}
		if b.Data != nil {
			d.write(x.GPA, b.Data)
		} else {
			x.Len, x.Flags = uint32(b.Room), Write
			r.rooms = append(r.rooms, x)
		}
		descs = append(descs, x)
		if b.At == 0 {
			at += uint64(x.Len) + pad
		}
	}
	if indirect >= 0 && indirect < len(descs) {
		table := (at + 15) &^ 15
		inner := descs[indirect:]
		for i, x := range inner {
			if i+1 < len(inner) {
				x.Flags, x.Next = x.Flags|Next, uint16(i+1)
			}
			d.write(table+16*uint64(i), x.Bytes())
		}
		at = table + 16*uint64(len(inner))
		descs = append(descs[:indirect:indirect], Desc{GPA: table, Len: uint32(16 * len(inner)), Flags: Indirect})
	}
	r.descs, q.free = q.free[:len(descs):len(descs)], q.free[len(descs):]
	for i, x := range descs {
		if i+1 < len(descs) {
			x.Flags, x.Next = x.Flags|Next, r.descs[i+1]
		}
		q.Put(r.descs[i], x)
	}
	head = r.descs[0]
	q.pending[head] = r
	q.Offer(head)
	return head, at
}

// Offer puts a head into the driver area.
func (q *Queue) Offer(head uint16) {
	q.d.set16(q.Avail+4+2*uint64(q.avail%q.Size), head)
	q.avail++
	q.d.set16(q.Avail+2, q.avail)
}

// Kick notifies the device of what was added, if it wants that.
func (q *Queue) Kick() {
	q.fence.Add(1)
	if q.eventIdx() {
		event := q.d.get16(q.Used + 4 + 8*uint64(q.Size))
		if q.avail-event-1 >= q.avail-q.kicked {
			q.kicked = q.avail
			return
		}
	} else if q.d.get16(q.Used)&1 != 0 {
		return
	}
	q.kicked = q.avail
	q.Kicks++
	q.d.Set(0x50, q.Index)
}

// Done takes one request that the device has used, if there is one: its head,
// how many bytes the device says to have written, and all of the room that
// there was for it.
func (q *Queue) Done() (head uint16, written uint32, data []byte, ok bool) {
	d := q.d
	d.T.Helper()
	if d.get16(q.Used+2) == q.used {
		return 0, 0, nil, false
	}
	e := d.read(q.Used+4+8*uint64(q.used%q.Size), 8)
	id, written := binary.LittleEndian.Uint32(e), binary.LittleEndian.Uint32(e[4:])
	q.used++
	r := q.pending[uint16(id)]
	if r == nil || id > 0xFFFF {
		d.T.Fatalf("queue %d: the device used %d, which it did not have", q.Index, id)
	}
	delete(q.pending, uint16(id))
	q.free = append(q.free, r.descs...)
	for _, room := range r.rooms {
		data = append(data, d.read(room.GPA, int(room.Len))...)
	}
	return uint16(id), written, data, true
}

// Wait is Done that waits for an interrupt if there is nothing yet. Only one
// goroutine may wait on a device.
func (q *Queue) Wait() (head uint16, written uint32, data []byte) {
	q.d.T.Helper()
	for {
		if head, written, data, ok := q.Done(); ok {
			return head, written, data
		}
		q.arm()
		if q.d.get16(q.Used+2) != q.used {
			q.disarm()
			continue
		}
		q.d.IRQ.Wait(q.d.T)
		q.d.Set(0x64, q.d.Get(0x60))
		q.disarm()
	}
}

// arm asks for an interrupt.
func (q *Queue) arm() {
	if q.eventIdx() {
		q.d.set16(q.Avail+4+2*uint64(q.Size), q.used)
	} else {
		q.d.set16(q.Avail, 0)
	}
	q.fence.Add(1)
}

// disarm asks for none.
func (q *Queue) disarm() {
	if !q.eventIdx() {
		q.d.set16(q.Avail, 1)
	}
}

// Do makes one request and waits for its answer.
func (q *Queue) Do(base uint64, bufs ...Buf) (written uint32, data []byte) {
	q.d.T.Helper()
	q.Add(base, 0, -1, bufs...)
	q.Kick()
	_, written, data = q.Wait()
	return written, data
}
