package kvm

import (
	"sync/atomic"
	"unsafe"
)

// coalescedZone is struct kvm_coalesced_mmio_zone.
type coalescedZone struct {
	addr    uint64
	size, _ uint32
}

// coalescedWrite is struct kvm_coalesced_mmio.
type coalescedWrite struct {
	addr   uint64
	len, _ uint32
	data   [8]byte
}

// coalescedRing is struct kvm_coalesced_mmio_ring, with as many writes as there
// is room for in its page.
type coalescedRing struct {
	first, last uint32
	writes      [maxCoalesced]coalescedWrite
}

// maxCoalesced is KVM_COALESCED_MMIO_MAX. One of them is always free.
const maxCoalesced = (pageSize - 8) / 24

// The C layouts, held at compile time; TestHeader asks the header too.
var (
	_ [16 - unsafe.Sizeof(coalescedZone{})]byte
	_ [24 - unsafe.Sizeof(coalescedWrite{})]byte
	_ [pageSize - unsafe.Sizeof(coalescedRing{})]byte
)

// An MMIORing has the writes that KVM has kept for CoalesceMMIO, of all vCPUs, in
// their order. It is one reader's at a time.
type MMIORing struct{ shared *coalescedRing }

func newMMIORing(page []byte) *MMIORing {
	return &MMIORing{(*coalescedRing)(unsafe.Pointer(unsafe.SliceData(page)))}
}

// Drain takes all writes off the ring, and calls do for each: data has 1 to 8
// bytes, in memory shared with KVM, for as long as do takes. It does not
// allocate.
func (r *MMIORing) Drain(do func(addr uint64, data []byte)) {
	// KVM writes an entry and then last, and takes one that first has passed
	// for free.
	first := atomic.LoadUint32(&r.shared.first)
	for first != atomic.LoadUint32(&r.shared.last) {
		w := &r.shared.writes[first%maxCoalesced]
		do(w.addr, w.data[:min(w.len, uint32(len(w.data)))])
		first = (first + 1) % maxCoalesced
		atomic.StoreUint32(&r.shared.first, first)
	}
}
