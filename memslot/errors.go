package memslot

import "errors"

// Errors to be compared with errors.Is. What the package returns wraps them
// with the slot or block, the numbers found and, where there is one, a remedy.
var (
	// ErrOutOfRange: an address or a range outside RAM, outside a block, or
	// past the end of the address space.
	ErrOutOfRange = errors.New("out of range")
	// ErrMisaligned: an address or size that is not a multiple of the page.
	ErrMisaligned = errors.New("not page aligned")
	// ErrOverlap: a slot would cover guest frames that another one has.
	ErrOverlap = errors.New("overlaps")
	// ErrSlotExists: create with an id that is in use.
	ErrSlotExists = errors.New("slot id is in use")
	// ErrNoSlot: move, flags or delete with an id that is not in use.
	ErrNoSlot = errors.New("no such slot")
	// ErrSlotLimit: an id at or past KVM_CAP_NR_MEMSLOTS.
	ErrSlotLimit = errors.New("slot id past the limit")
	// ErrReadOnly: a write into a slot with KVM_MEM_READONLY, or an attempt
	// to change that flag, which KVM fixes when the slot is created.
	ErrReadOnly = errors.New("read-only slot")
	// ErrAbsent: pages are missing, and the operation needs them all.
	ErrAbsent = errors.New("pages are absent")
	// ErrClosed: the block's mapping is gone.
	ErrClosed = errors.New("block is closed")
)
