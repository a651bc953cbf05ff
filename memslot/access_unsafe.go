package memslot

import (
	"fmt"
	"unsafe"
)

// read copies guest RAM from off on into p.
//
// Preconditions: [off, off+len(p)) is inside the block.
func (b *Block) read(p []byte, off uint64) error {
	if b.state.Load()&stateMissing != 0 {
		if err := b.await(off, uint64(len(p))); err != nil {
			return err
		}
	}
	load(p, b.mapping.mem[off:])
	return nil
}

// write copies p into guest RAM at off.
//
// Preconditions: [off, off+len(p)) is inside the block.
func (b *Block) write(p []byte, off uint64) error {
	if b.state.Load()&stateMissing != 0 {
		if err := b.await(off, uint64(len(p))); err != nil {
			return err
		}
	}
	store(b.mapping.mem[off:], p)
	// After the data: whoever takes the bit before this finds it set again,
	// whoever takes it after this finds the data.
	if b.state.Load()&stateLogging != 0 && len(p) != 0 {
		first, last := off/hostPage, (off+uint64(len(p))-1)/hostPage
		b.dirty.SetRange(first, last-first+1)
	}
	return nil
}

// await waits until the pages of a range are present.
func (b *Block) await(off, n uint64) error {
	if n == 0 {
		return nil
	}
	if err := b.presence.await(off/b.pageSize, (off+n-1)/b.pageSize); err != nil {
		return fmt.Errorf("RAM block %q: %w", b.name, err)
	}
	return nil
}

// load copies len(dst) bytes out of guest memory. 2, 4 and 8 bytes are read by
// one instruction, so that a virtqueue index which a vCPU is just writing is
// never seen half old and half new; copy makes no such promise.
func load(dst, src []byte) {
	src = src[:len(dst)]
	switch len(dst) {
	case 2:
		*(*uint16)(unsafe.Pointer(&dst[0])) = *(*uint16)(unsafe.Pointer(&src[0]))
	case 4:
		*(*uint32)(unsafe.Pointer(&dst[0])) = *(*uint32)(unsafe.Pointer(&src[0]))
	case 8:
		*(*uint64)(unsafe.Pointer(&dst[0])) = *(*uint64)(unsafe.Pointer(&src[0]))
	default:
		copy(dst, src)
	}
}

// store is load's counterpart. The stores are plain ones: the address is the
// guest's choice, and a locked store across a cache line traps on hosts that
// detect split locks.
func store(dst, src []byte) {
	load(dst, src)
}
