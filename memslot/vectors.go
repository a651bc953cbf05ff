package memslot

import (
	"fmt"

	"golang.org/x/sys/unix"

	"microvm/kvm"
)

// Vectors appends to dst where guest RAM [gpa, gpa+n) is in this process, for
// a system call to read or write it there: preadv, pwritev and their like. It
// waits for pages that are missing. write says that the call will write to the
// memory; then MarkDirty has to follow it. On an error dst is returned as it
// was, and nothing of the range may be touched.
//
// The vectors are good as long as no page goes missing again: until the VM is
// paused, or closed. A device therefore waits for its system calls to return
// before it says that it is at rest.
func (m *Memory) Vectors(dst []unix.Iovec, gpa, n uint64, write bool) ([]unix.Iovec, error) {
	was := len(dst)
	for at, left := gpa, n; left > 0; {
		s := m.slots.Find(at >> frameShift)
		switch {
		case s == nil || at < gpa:
			return dst[:was], fmt.Errorf("%d bytes at guest-physical %#x: no RAM at %#x: %w", n, gpa, at, ErrOutOfRange)
		case write && s.Flags&kvm.MemReadonly != 0:
			return dst[:was], fmt.Errorf("write of %d bytes at guest-physical %#x: %v: %w", n, gpa, s, ErrReadOnly)
		}
		in := at - s.GPA()
		part := min(s.Size()-in, left)
		vector, err := s.block.vector(s.offset+in, part)
		if err != nil {
			return dst[:was], err
		}
		dst = append(dst, vector)
		at, left = at+part, left-part
	}
	return dst, nil
}

// MarkDirty says that a system call has written guest RAM [gpa, gpa+n), all of
// which Vectors gave for writing.
func (m *Memory) MarkDirty(gpa, n uint64) {
	for n > 0 {
		s := m.slots.Find(gpa >> frameShift)
		if s == nil {
			return
		}
		in := gpa - s.GPA()
		part := min(s.Size()-in, n)
		s.block.markDirty(s.offset+in, part)
		gpa, n = gpa+part, n-part
	}
}

// vector is [off, off+n) of the block as a system call takes it, with no page
// of it missing.
//
// Preconditions: the range is inside the block and not empty.
func (b *Block) vector(off, n uint64) (unix.Iovec, error) {
	if b.state.Load()&stateMissing != 0 {
		if err := b.await(off, n); err != nil {
			return unix.Iovec{}, err
		}
	}
	return unix.Iovec{Base: &b.mapping.mem[off], Len: n}, nil
}

// markDirty marks the pages of [off, off+n), which have been written: whoever
// takes a bit before this finds it set again.
func (b *Block) markDirty(off, n uint64) {
	if b.state.Load()&stateLogging != 0 && n != 0 {
		first, last := off/hostPage, (off+n-1)/hostPage
		b.dirty.SetRange(first, last-first+1)
	}
}

// Request asks for what is missing of guest RAM [gpa, gpa+n) and does not wait
// for it. It reports whether nothing is: an access does not wait then. What is
// no RAM is not missing; an access says so.
func (m *Memory) Request(gpa, n uint64) (here bool) {
	here = true
	_ = m.each(gpa, n, func(b *Block, off, n uint64) error {
		if b.state.Load()&stateMissing != 0 {
			here = b.presence.request(off/b.pageSize, (off+n-1)/b.pageSize) && here
		}
		return nil
	})
	return here
}

// Await returns when nothing of guest RAM [gpa, gpa+n) is missing, or with why
// some of it will not come.
func (m *Memory) Await(gpa, n uint64) error {
	return m.each(gpa, n, func(b *Block, off, n uint64) error {
		if b.state.Load()&stateMissing == 0 {
			return nil
		}
		return b.await(off, n)
	})
}

// each calls do for the parts of guest RAM that [gpa, gpa+n) begins with, up to
// where there is none, until it returns an error.
func (m *Memory) each(gpa, n uint64, do func(b *Block, off, n uint64) error) error {
	for n > 0 {
		s := m.slots.Find(gpa >> frameShift)
		if s == nil {
			return nil
		}
		in := gpa - s.GPA()
		part := min(s.Size()-in, n)
		if err := do(s.block, s.offset+in, part); err != nil {
			return err
		}
		gpa, n = gpa+part, n-part
	}
	return nil
}

// Whole reports that no page of RAM is missing, so that no access waits. It
// stays so until the next Expect.
func (m *Memory) Whole() bool {
	for _, s := range m.slots.All() {
		if s.block != nil && s.block.state.Load()&stateMissing != 0 {
			return false
		}
	}
	return true
}
