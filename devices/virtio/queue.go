package virtio

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"

	"microvm/memslot"
)

// Layout of a split virtqueue (section 2.7). The descriptor table is an array
// of descriptors; the driver area and the device area are rings:
//
//	driver area  flags 2, idx 2, ring [size]2, used_event 2
//	device area  flags 2, idx 2, ring [size]{id 4, len 4}, avail_event 2
const (
	descSize = 16
	usedSize = 8

	ringFlags   = 0
	ringIdx     = 2
	ringEntries = 4

	availNoInterrupt = 1 // VIRTQ_AVAIL_F_NO_INTERRUPT
	usedNoNotify     = 1 // VIRTQ_USED_F_NO_NOTIFY
)

// A Queue is one split virtqueue, the device's side. Next and what belongs to
// it is for the queue's worker; Push is for any goroutine.
type Queue struct {
	index int
	max   uint16
	mem   *memslot.Memory
	// used tells the driver, fail stops the device, wake has the worker look;
	// the device's, and never changed.
	used func(*Queue)
	fail func(error)
	wake func()

	// What the driver set up; it does not change while the queue is ready
	// and the device live.
	setup queueSetup

	// What was negotiated; set before the worker starts.
	eventIdx, indirect bool
	// halt ends Next: the worker is to come home.
	halt atomic.Bool
	// woken: Wake has been called since the worker last looked.
	woken atomic.Bool

	// The worker's: next is the index, in the driver area, of what it takes
	// next, and seen how far it knows the driver to have come.
	next, seen uint16
	word       [8]byte
	desc       [descSize]byte
	table      []byte // an indirect table, read once
	fence      atomic.Uint32

	// mu guards the device area's index and what goes with it.
	mu        sync.Mutex
	usedIdx   uint16
	lastTold  uint16 // usedIdx when it was last weighed whether to interrupt
	tellFirst bool   // lastTold is not known: interrupt once whatever it says
	element   [usedSize]byte

	stats queueCounters
}

// queueSetup is what a driver sets up of a queue.
type queueSetup struct {
	size                 uint16
	ready                bool
	desc, driver, device uint64
}

type queueCounters struct{ kicks, chains, interrupts atomic.Uint64 }

// QueueStats counts what a queue has seen since the VM came to this host.
type QueueStats struct {
	Kicks      uint64 `json:"kicks"`      // notifications by the driver
	Chains     uint64 `json:"chains"`     // requests that it made available
	Interrupts uint64 `json:"interrupts"` // notifications of the driver
}

// Index is the queue's number in its device.
func (q *Queue) Index() int { return q.index }

// Stats can be read at any time.
func (q *Queue) Stats() QueueStats {
	return QueueStats{Kicks: q.stats.kicks.Load(), Chains: q.stats.chains.Load(), Interrupts: q.stats.interrupts.Load()}
}

// check refuses a queue that cannot be made ready: sizes and alignments of
// section 2.7, areas that wrap around the address space. Whether there is RAM
// is found out at each access, since what there is may change.
func (s *queueSetup) check(max uint16) error {
	size := uint64(s.size)
	switch {
	case size == 0 || size&(size-1) != 0 || size > uint64(max):
		return fmt.Errorf("size %d: has to be a power of 2 up to %d", size, max)
	case s.desc%16 != 0 || s.driver%2 != 0 || s.device%4 != 0:
		return fmt.Errorf("descriptors at %#x, driver area at %#x, device area at %#x: have to be aligned to 16, 2 and 4", s.desc, s.driver, s.device)
	}
	for _, area := range []struct{ at, n uint64 }{
		{s.desc, descSize * size}, {s.driver, ringEntries + 2*size + 2}, {s.device, ringEntries + usedSize*size + 2},
	} {
		if area.at+area.n < area.at {
			return fmt.Errorf("area of %d bytes at %#x wraps around", area.n, area.at)
		}
	}
	return nil
}

// begin prepares for a worker. Preconditions: no worker runs.
func (q *Queue) begin(features uint64) {
	q.eventIdx = features&FeatureEventIdx != 0
	q.indirect = features&FeatureIndirect != 0
	if q.indirect && q.table == nil {
		q.table = make([]byte, maxIndirect*descSize)
	}
	q.seen = q.next
	q.tellFirst = true
	q.halt.Store(false)
}

// reset makes it as it was at power-on. Preconditions: no worker runs.
func (q *Queue) reset() {
	q.setup = queueSetup{size: q.max}
	q.next, q.seen = 0, 0
	q.mu.Lock()
	q.usedIdx, q.lastTold = 0, 0
	q.mu.Unlock()
}

// Next takes the next chain that the driver has made available into c, whose
// memory it reuses. It returns false if there is none, or if the queue is to
// come to rest. An error means that the driver broke the rules, or that its
// memory cannot be had; the queue is not to be used any more then.
func (q *Queue) Next(c *Chain) (bool, error) {
	if q.halt.Load() {
		return false, nil
	}
	if q.seen == q.next {
		if err := q.look(); err != nil || q.seen == q.next {
			return false, err
		}
	}
	slot := uint64(q.next & (q.setup.size - 1))
	head, err := q.load16(q.setup.driver + ringEntries + 2*slot)
	if err == nil {
		err = q.walk(c, head)
	}
	if err != nil {
		return false, q.errorf("%w", err)
	}
	q.next++
	q.stats.chains.Add(1)
	return true, nil
}

// Wake has the worker call Serve, as a notification of the driver does: there
// is something new to put into the queue's chains. It can be called at any time,
// by any goroutine, and costs little if the worker has not yet seen the last
// one. While the device is held nothing is lost: its release looks at every
// queue.
func (q *Queue) Wake() {
	if !q.woken.Swap(true) {
		q.wake()
	}
}

// look finds out how far the driver has come.
func (q *Queue) look() error {
	idx, err := q.load16(q.setup.driver + ringIdx)
	if err != nil {
		return q.errorf("read the driver area: %w", err)
	}
	if idx-q.next > q.setup.size {
		return q.errorf("the driver's index went from %d to %d, and the queue has %d entries", q.next, idx, q.setup.size)
	}
	q.seen = idx
	return nil
}

// busy tells the driver that it need not notify: the worker looks again by
// itself. With EVENT_IDX nothing has to be said, since the driver notifies
// when it passes the index that arm left.
func (q *Queue) busy() error {
	if q.eventIdx {
		return nil
	}
	return q.store16(q.setup.device+ringFlags, usedNoNotify)
}

// arm asks the driver for a notification of what it makes available next, and
// reports whether it has done so meanwhile.
func (q *Queue) arm() (more bool, err error) {
	if q.eventIdx {
		err = q.store16(q.setup.device+ringEntries+usedSize*uint64(q.setup.size), q.next)
	} else {
		err = q.store16(q.setup.device+ringFlags, 0)
	}
	if err != nil {
		return false, q.errorf("write the device area: %w", err)
	}
	// The driver writes its index and then looks at what was just written;
	// we do the same the other way round. Each needs a barrier between the
	// two, or both may miss what the other wrote. A locked instruction is
	// one; on what, does not matter.
	q.fence.Add(1)
	if err := q.look(); err != nil {
		return false, err
	}
	return q.seen != q.next, nil
}

// Return undoes the last n calls of Next that gave a chain, none of which has
// been pushed: the driver's chains are as if they had not been taken. It is for
// the worker, and for Drain.
func (q *Queue) Return(n int) {
	q.next -= uint16(n)
	q.stats.chains.Add(-uint64(n))
}

// Size is how many entries the driver's queue has. It is for the worker.
func (q *Queue) Size() int { return int(q.setup.size) }

// Fail says that the driver broke the rules, or that its memory cannot be had:
// the device stands still until it is reset. Serve can return the error
// instead.
func (q *Queue) Fail(err error) { q.fail(q.errorf("%w", err)) }

func (q *Queue) load16(gpa uint64) (uint16, error) {
	err := q.mem.ReadAt(q.word[:2], gpa)
	return binary.LittleEndian.Uint16(q.word[:]), err
}

func (q *Queue) store16(gpa uint64, v uint16) error {
	binary.LittleEndian.PutUint16(q.word[:], v)
	return q.mem.WriteAt(q.word[:2], gpa)
}

func (q *Queue) errorf(format string, args ...any) error {
	return fmt.Errorf("virtqueue %d: "+format, append([]any{q.index}, args...)...)
}
