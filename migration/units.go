package migration

import (
	"slices"

	"microvm/memslot"
	"microvm/migration/wire"
)

// The unit in which pages are sent, asked for and accounted for is the host
// page of the destination, since userfaultfd places no less. How large the
// source's own are does not matter: it reads any part of its memory, and KVM
// logs writes in pages of 4096 bytes whatever backs them.

// maxUnit is the largest unit, in bytes: what a RAM message carries at most.
const maxUnit = wire.MaxRunPages * wire.PageSize

// sayPageSizes tells the source the page sizes of this side's blocks, unless
// it has the same.
func (in *inbound) sayPageSizes(a wire.Advise) error {
	blocks := in.d.machine.Blocks()
	var sizes []uint64
	for i, b := range blocks {
		if s := a.PageSizes[i]; s < wire.PageSize || s&(s-1) != 0 {
			return protocolError("POSTCOPY_ADVISE", "RAM block %q: page size %d is no power of two from %d up", b.Name(), s, wire.PageSize)
		}
		sizes = append(sizes, b.PageSize())
	}
	if slices.Equal(sizes, a.PageSizes) {
		return nil
	}
	in.d.log.Info("the source's host pages have other sizes; it sends in those of this side", "source", a.PageSizes, "here", sizes)
	return in.back.send(func(b []byte) []byte { return wire.AppendPageSizes(b, sizes) })
}

// setUnits has pages sent in the sizes that the destination has named. Nothing
// has been claimed yet.
func (o *outgoing) setUnits(sizes []uint64) error {
	if len(sizes) != len(o.blocks) {
		return protocolError("PAGE_SIZES", "%d sizes, CONFIG had %d RAM blocks", len(sizes), len(o.blocks))
	}
	for i, size := range sizes {
		b := &o.blocks[i]
		bytes := uint64(len(b.mem))
		if size < wire.PageSize || size > maxUnit || size&(size-1) != 0 || bytes%size != 0 {
			return protocolError("PAGE_SIZES", "RAM block %q of %d bytes in pages of %d: a power of two from %d to %d that divides it can be sent whole; here they are of %d",
				b.name, bytes, size, wire.PageSize, maxUnit, b.perHost*wire.PageSize)
		}
		b.perHost, b.pages = size/wire.PageSize, bytes/size
		b.sent, b.stale = memslot.NewBitmap(b.pages), memslot.NewBitmap(b.pages)
		b.changes = b.newChanges()
	}
	return nil
}
