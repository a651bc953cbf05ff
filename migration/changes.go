package migration

import (
	"microvm/memslot"
	"microvm/migration/wire"
)

// Parts of host pages. KVM logs writes in target pages of 4096 bytes whatever
// backs them, and a guest on huge pages that writes one word of each would have
// precopy send all of its memory again in every pass. So what changes in a page
// that the destination has goes out alone, and is put into that page, as long
// as the guest does not run there. At the switch to postcopy a page that is
// not as it should be is dropped whole, and sent whole.

// partGap is how many target pages that have not changed may lie between two
// that have for all of them to go in one run. It bounds the runs of a huge page
// to fewer than a batch has room for.
const partGap = 8

// newChanges is the bitmap of target pages that have changed since they were
// sent; nil where host pages are no larger.
func (b *outgoingBlock) newChanges() *memslot.Bitmap {
	if b.perHost == 1 {
		return nil
	}
	return memslot.NewBitmap(uint64(len(b.mem)) / wire.PageSize)
}

// changed takes in what the dirty log says.
func (b *outgoingBlock) note(dirty *memslot.Bitmap) {
	if b.changes == nil {
		return
	}
	words := dirty.Words()
	for i := range words {
		if w := words[i].Load(); w != 0 {
			b.changes.Words()[i].Or(w)
		}
	}
}

// unchanged counts the target pages that need not be sent, of host pages that
// have changed in part.
func (b *outgoingBlock) unchanged() (n uint64) {
	if b.changes == nil {
		return 0
	}
	for page, ok := b.stale.NextSet(0); ok; page, ok = b.stale.NextSet(page + 1) {
		n += b.perHost
		end := (page + 1) * b.perHost
		for t, ok := b.changes.NextSet(page * b.perHost); ok && t < end; t, ok = b.changes.NextSet(t + 1) {
			n--
		}
	}
	return n
}

// addChanges appends what has changed of a host page that has been claimed, and
// that the destination has.
func (b *batch) addChanges(block int, page uint64) {
	ob := &b.o.blocks[block]
	end := (page + 1) * ob.perHost
	for first, ok := ob.changes.NextSet(page * ob.perHost); ok && first < end; {
		last := first
		next, more := ob.changes.NextSet(last + 1)
		for more && next < end && next-last <= partGap {
			last = next
			next, more = ob.changes.NextSet(last + 1)
		}
		b.addRun(block, first, last+1-first)
		first, ok = next, more
	}
	ob.changes.ClearRange(page*ob.perHost, ob.perHost)
}

// patch puts parts into host pages that are in place, before the guest runs.
func (p *pager) patch(b *memslot.Block, off, length uint64, data []byte) error {
	for page := off / b.PageSize(); page*b.PageSize() < off+length; page++ {
		if !b.Present(page) {
			return protocolError("RAM", "RAM block %q: %d bytes at offset %#x are a part of a host page of %d bytes that has not come", b.Name(), length, off, b.PageSize())
		}
	}
	return b.Overwrite(off, length, data)
}
