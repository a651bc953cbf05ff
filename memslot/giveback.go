package memslot

import (
	"fmt"

	"microvm/kvm"
)

// GiveBack gives the host's memory behind the whole pages in [gpa, gpa+n) back
// to the host: the guest does not need what is in them. They read as zeros from
// then on, which counts as a write of zeros, and take memory again when they
// are touched. given is how many bytes that was: none of a block in which pages
// may be missing, where a page that is dropped would be fetched from the source
// again, and none of huge pages, which a VM has reserved for itself and might
// not get again. What is not given back stays as it is.
//
// All of the range has to be RAM that the guest may write to. On an error
// nothing has changed unless it is the host's kernel's.
func (m *Memory) GiveBack(gpa, n uint64) (given uint64, err error) {
	for _, do := range []bool{false, true} {
		for at, left := gpa, n; left > 0; {
			s := m.slots.Find(at >> frameShift)
			switch {
			case s == nil || at < gpa:
				return given, fmt.Errorf("give back %d bytes at guest-physical %#x: no RAM at %#x: %w", n, gpa, at, ErrOutOfRange)
			case s.Flags&kvm.MemReadonly != 0:
				return given, fmt.Errorf("give back %d bytes at guest-physical %#x: %v: %w", n, gpa, s, ErrReadOnly)
			}
			in := at - s.GPA()
			part := min(s.Size()-in, left)
			if do {
				got, err := s.block.giveBack(s.offset+in, part)
				given += got
				if err != nil {
					return given, err
				}
			}
			at, left = at+part, left-part
		}
	}
	return given, nil
}

// giveBack is GiveBack of [off, off+n) of the block.
//
// Preconditions: the range is inside the block, and Expect is not called
// meanwhile: like every access.
func (b *Block) giveBack(off, n uint64) (uint64, error) {
	first, end := (off+b.pageSize-1)/b.pageSize*b.pageSize, (off+n)/b.pageSize*b.pageSize
	if first >= end || b.backing == Hugetlb || b.state.Load()&stateMissing != 0 {
		return 0, nil
	}
	if err := b.mapping.discard(first, end-first); err != nil {
		return 0, fmt.Errorf("RAM block %q: give back [%#x, +%#x): %w", b.name, first, end-first, err)
	}
	b.markDirty(first, end-first) // after they have become zeros
	return end - first, nil
}
