package memslot

import (
	"math/bits"
	"sync/atomic"
)

// table is one state of the slot array. After it has been published only last
// changes.
type table struct {
	// slots[:used] is sorted from the highest frame to the lowest. There is
	// no sentinel.
	slots []Slot
	used  int
	// bases[i] is slots[i].BaseGFN: the search walks it instead of slots,
	// eight entries to a cache line.
	bases []uint64
	// starts has an entry for each range of 1<<shift frames, from frame 0 to
	// the highest base, and one more: where the search for the first frame of
	// the range would end. It leaves the search few slots, mostly one.
	starts []int32
	shift  uint
	// index gives the position of each slot id, or -1.
	index []int16

	// last is where the search found something last. Every reader writes
	// it, so it has a cache line to itself.
	_    [64]byte
	last atomic.Int32
	_    [60]byte
}

func newTable(max int) *table {
	t := &table{index: make([]int16, max)}
	for i := range t.index {
		t.index[i] = -1
	}
	return t
}

// clone copies the table, with room for more new slots.
func (t *table) clone(more int) *table {
	c := &table{
		slots: make([]Slot, t.used+more),
		used:  t.used,
		index: append([]int16(nil), t.index...),
	}
	copy(c.slots, t.slots[:t.used])
	c.last.Store(t.last.Load())
	return c
}

// seal prepares a changed table for readers.
func (t *table) seal() {
	t.slots = t.slots[:t.used]
	t.bases = make([]uint64, t.used)
	for i := range t.slots {
		t.bases[i] = t.slots[i].BaseGFN
	}
	t.start()
}

// start makes starts: about as many entries as two for each slot.
func (t *table) start() {
	if t.used == 0 {
		t.starts, t.shift = nil, 0
		return
	}
	top := t.bases[0]
	t.shift = uint(max(0, bits.Len64(top)-bits.Len(uint(t.used))))
	t.starts = make([]int32, top>>t.shift+2)
	first := 0
	for i := len(t.starts) - 2; i >= 0; i-- {
		for first < t.used && t.bases[first] > uint64(i)<<t.shift {
			first++
		}
		t.starts[i] = int32(first)
	}
}

// create puts s at the back and moves it forward.
func (t *table) create(s Slot) {
	t.used++
	t.forward(t.used-1, s)
}

// move takes the slot at i to its new place. It goes backward as far as higher
// frames follow, and forward as far as lower ones precede; one of the two is
// nowhere.
func (t *table) move(i int, s Slot) {
	t.forward(t.backward(i, s), s)
}

// backward shifts the slots after i that belong before s, and returns where
// the gap has come to.
func (t *table) backward(i int, s Slot) int {
	for ; i+1 < t.used && t.slots[i+1].BaseGFN > s.BaseGFN; i++ {
		t.put(i, t.slots[i+1])
	}
	return i
}

// forward shifts the slots before i that belong after s, and puts s into the
// gap.
func (t *table) forward(i int, s Slot) {
	for ; i > 0 && t.slots[i-1].BaseGFN < s.BaseGFN; i-- {
		t.put(i, t.slots[i-1])
	}
	t.put(i, s)
}

// delete shifts down what follows i.
func (t *table) delete(i int) {
	t.index[t.slots[i].ID] = -1
	for ; i+1 < t.used; i++ {
		t.put(i, t.slots[i+1])
	}
	t.used--
}

func (t *table) put(i int, s Slot) {
	t.slots[i] = s
	t.index[s.ID] = int16(i)
}

// find returns the slot that has the frame, or nil. The search starts at the
// slot found last, and goes no further if that is the one.
func (t *table) find(gfn uint64) *Slot {
	if i := int(t.last.Load()); i < len(t.slots) && t.slots[i].contains(gfn) {
		return &t.slots[i]
	}
	return t.search(gfn)
}

// search is the binary search: for the first base at or below gfn.
func (t *table) search(gfn uint64) *Slot {
	bases := t.bases
	first, n := 0, min(1, len(bases))
	if r := gfn >> t.shift; r+1 < uint64(len(t.starts)) {
		first = int(t.starts[r+1])
		n = min(int(t.starts[r])+1, len(bases)) - first
	}
	// Which half it is cannot be predicted, so the choice is arithmetic and
	// not a branch: below is 1 if gfn lies below every base of the first
	// half.
	for n > 1 {
		half := n >> 1
		_, below := bits.Sub64(gfn, bases[first+half-1], 0)
		first += half & -int(below)
		n -= half
	}
	if n == 0 || !t.slots[first].contains(gfn) {
		return nil
	}
	t.last.Store(int32(first))
	return &t.slots[first]
}
