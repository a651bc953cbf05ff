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
	b.mapping.load(p, off)
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
	b.mapping.store(off, p)
	b.markDirty(off, uint64(len(p))) // after the data
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

// load copies len(dst) bytes out of guest memory at off.
func (m *mapping) load(dst []byte, off uint64) { move(dst, m.mem[off:off+uint64(len(dst))]) }

// store copies src into guest memory at off. The stores are plain ones: the
// address is the guest's choice, and a locked store across a cache line traps
// on hosts that detect split locks.
func (m *mapping) store(off uint64, src []byte) { move(m.mem[off:off+uint64(len(src))], src) }

// move copies between slices of one length. 2, 4 and 8 bytes go by one load
// and one store, so that a virtqueue index which the other side is just
// writing is never seen half old and half new; copy makes no such promise, and
// moves 2 bytes one by one.
func move(dst, src []byte) {
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
