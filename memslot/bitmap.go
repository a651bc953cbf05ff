package memslot

import (
	"math/bits"
	"sync/atomic"
)

// Bitmap is a fixed number of bits, one per page, that any number of
// goroutines may use at once. Bit i is bit i%64 of word i/64, which is the
// layout of KVM_GET_DIRTY_LOG on a little-endian host. Bits past the length
// are always clear.
//
// Setting and clearing is a locked read-modify-write even where the bit has
// the wanted value already: the full barrier that comes with it is what orders
// page contents before the bit.
type Bitmap struct {
	n     uint64
	words []atomic.Uint64
}

// NewBitmap returns a bitmap of n bits, all clear.
func NewBitmap(n uint64) *Bitmap {
	return &Bitmap{n: n, words: make([]atomic.Uint64, (n+63)/64)}
}

// Len is the number of bits.
func (m *Bitmap) Len() uint64 { return m.n }

// Words gives the bits themselves, to be merged with KVM's dirty log or put on
// the wire without a copy. A bit past Len must not be set through it.
func (m *Bitmap) Words() []atomic.Uint64 { return m.words }

// Test reports whether bit i is set. Past the end no bit is.
func (m *Bitmap) Test(i uint64) bool {
	return i < m.n && m.words[i/64].Load()&(1<<(i%64)) != 0
}

// Set sets bit i. It panics if i is past the end, as do Clear and TestAndSet.
func (m *Bitmap) Set(i uint64) { m.word(i).Or(1 << (i % 64)) }

// Clear clears bit i.
func (m *Bitmap) Clear(i uint64) { m.word(i).And(^uint64(1 << (i % 64))) }

// TestAndSet sets bit i and reports whether it was set before.
func (m *Bitmap) TestAndSet(i uint64) bool {
	bit := uint64(1) << (i % 64)
	return m.word(i).Or(bit)&bit != 0
}

func (m *Bitmap) word(i uint64) *atomic.Uint64 {
	if i >= m.n {
		panic("memslot: bit past the end of the bitmap")
	}
	return &m.words[i/64]
}

// SetRange sets n bits from first on. What lies past the end is ignored.
func (m *Bitmap) SetRange(first, n uint64) {
	first, end := m.clip(first, n)
	for first < end {
		w, mask, next := span(first, end)
		m.words[w].Or(mask)
		first = next
	}
}

// ClearRange clears n bits from first on. What lies past the end is ignored.
func (m *Bitmap) ClearRange(first, n uint64) {
	first, end := m.clip(first, n)
	for first < end {
		w, mask, next := span(first, end)
		m.words[w].And(^mask)
		first = next
	}
}

// clip turns a range given by its length into one given by its end.
func (m *Bitmap) clip(first, n uint64) (begin, end uint64) {
	if first >= m.n {
		return m.n, m.n
	}
	if n > m.n-first {
		n = m.n - first
	}
	return first, first + n
}

// span is the part of [first, end) that falls into first's word: the word, the
// bits, and where the next word's part begins.
func span(first, end uint64) (word, mask, next uint64) {
	word = first / 64
	mask = ^uint64(0) << (first % 64)
	next = (word + 1) * 64
	if next > end {
		mask &= ^uint64(0) >> (next - end)
		next = end
	}
	return word, mask, next
}

// NextSet finds the first set bit at or after from.
func (m *Bitmap) NextSet(from uint64) (i uint64, ok bool) { return m.next(from, 0) }

// NextClear finds the first clear bit at or after from.
func (m *Bitmap) NextClear(from uint64) (i uint64, ok bool) { return m.next(from, ^uint64(0)) }

// PrevClear finds the last clear bit before end.
func (m *Bitmap) PrevClear(end uint64) (i uint64, ok bool) {
	end = min(end, m.n)
	if end == 0 {
		return 0, false
	}
	mask := ^uint64(0) >> (63 - (end-1)%64)
	for w := int((end - 1) / 64); w >= 0; w-- {
		if v := ^m.words[w].Load() & mask; v != 0 {
			return uint64(w)*64 + uint64(63-bits.LeadingZeros64(v)), true
		}
		mask = ^uint64(0)
	}
	return 0, false
}

// next looks for a bit that differs from those of skip.
func (m *Bitmap) next(from, skip uint64) (uint64, bool) {
	if from >= m.n {
		return 0, false
	}
	mask := ^uint64(0) << (from % 64)
	for w := from / 64; w < uint64(len(m.words)); w++ {
		if v := (m.words[w].Load() ^ skip) & mask; v != 0 {
			i := w*64 + uint64(bits.TrailingZeros64(v))
			return i, i < m.n
		}
		mask = ^uint64(0)
	}
	return 0, false
}

// Count is the number of set bits. While others change them it is the sum of
// what each word held when it was looked at.
func (m *Bitmap) Count() uint64 {
	n := 0
	for i := range m.words {
		n += bits.OnesCount64(m.words[i].Load())
	}
	return uint64(n)
}
