package memslot

import "fmt"

// Expect makes every page of the block absent: its host memory is given back,
// and from now on an access waits until MarkPresent says that the page has
// come. fetch is called, by whoever first needs an absent page, to ask the
// pager for it; page is an index in units of PageSize. It must not block, and
// may be called from many goroutines at once.
//
// Expect comes before anything is put into the block and before userfaultfd
// watches it or after; either is right. With transparent huge pages one write
// before userfaultfd is armed would make 511 neighbours present as zeros, so
// pages that arrive go in by UFFDIO_COPY from the first one on.
//
// Preconditions: no vCPU runs on the block and no accessor is in it.
func (b *Block) Expect(fetch func(page uint64)) error {
	b.state.Or(stateMissing)
	b.presence.reset(fetch)
	if err := b.mapping.discard(0, b.size); err != nil {
		return fmt.Errorf("RAM block %q: make all pages absent: %w", b.name, err)
	}
	return nil
}

// MarkPresent says that n pages from first on are in place, and wakes whoever
// waits for one of them. It does not allocate, and locks only if somebody
// waits. Pages past the end are ignored.
func (b *Block) MarkPresent(first, n uint64) {
	b.presence.bits.SetRange(first, n)
	b.presence.arrived(first, n)
}

// Present reports whether the page is in place. Past the end none is.
func (b *Block) Present(page uint64) bool { return b.presence.bits.Test(page) }

// NextAbsent finds the first absent page at or after from.
func (b *Block) NextAbsent(from uint64) (page uint64, ok bool) {
	return b.presence.bits.NextClear(from)
}

// Discard makes n pages from first on absent again and gives their host memory
// back: the source has changed them since they were sent.
//
// Preconditions: as for Expect, which has been called.
func (b *Block) Discard(first, n uint64) error {
	if n > b.Pages() || first > b.Pages()-n {
		return fmt.Errorf("RAM block %q: discard of pages [%d, +%d) of %d: %w", b.name, first, n, b.Pages(), ErrOutOfRange)
	}
	if b.state.Load()&stateMissing == 0 {
		return fmt.Errorf("RAM block %q: discard of pages [%d, +%d): nothing would bring them: no migration is under way", b.name, first, n)
	}
	if n == 0 {
		return nil
	}
	b.presence.bits.ClearRange(first, n)
	if err := b.mapping.discard(first*b.pageSize, n*b.pageSize); err != nil {
		return fmt.Errorf("RAM block %q: discard of pages [%d, +%d): %w", b.name, first, n, err)
	}
	return nil
}

// Overwrite replaces n bytes from off on with data, or with zeros if data is
// nil: the source has changed pages that are here already. It neither marks
// them dirty nor waits.
//
// Preconditions: as for Expect, which has been called; the pages are present.
func (b *Block) Overwrite(off, n uint64, data []byte) error {
	if err := b.check(off, n); err != nil {
		return fmt.Errorf("overwrite: %w", err)
	}
	for page := off / b.pageSize; page*b.pageSize < off+n; page++ {
		if !b.Present(page) {
			return fmt.Errorf("RAM block %q: overwrite [%#x, +%#x): page %d: %w", b.name, off, n, page, ErrAbsent)
		}
	}
	if data == nil {
		clear(b.mapping.mem[off : off+n])
	} else {
		copy(b.mapping.mem[off:off+n], data)
	}
	return nil
}

// Complete ends what Expect began: accesses go straight to memory again. It is
// an error, and nothing is changed, while a page is absent.
func (b *Block) Complete() error {
	if page, absent := b.NextAbsent(0); absent {
		return fmt.Errorf("RAM block %q: %w: %d of %d, the first is page %d",
			b.name, ErrAbsent, b.Pages()-b.presence.bits.Count(), b.Pages(), page)
	}
	b.state.And(^uint32(stateMissing))
	return nil
}

// Fail gives err to every access that waits for an absent page or will come to
// one. The first error stays, until the next Expect. Pages that are present
// can still be accessed.
func (b *Block) Fail(err error) {
	if err == nil {
		err = ErrAbsent
	}
	b.presence.fail(err)
}
