package memslot

import (
	"fmt"
	"math"
	"sync/atomic"
)

// Backing is what kind of host memory a block is.
type Backing int

const (
	// Anonymous memory, advised for transparent huge pages.
	Anonymous Backing = iota
	// Memfd is shared memory behind a file descriptor.
	Memfd
	// Hugetlb is memory from the host's reserved pool of 2 MiB pages.
	Hugetlb
)

func (k Backing) String() string {
	switch k {
	case Anonymous:
		return "anonymous"
	case Memfd:
		return "memfd"
	case Hugetlb:
		return "hugetlb"
	}
	return fmt.Sprintf("backing %d", int(k))
}

// BlockOptions says what a block is made of. The zero value is anonymous
// memory.
type BlockOptions struct {
	Backing Backing
	// PageSize in bytes; 0 is the backing's own: the host's page, or 2 MiB
	// for Hugetlb. Another size than the backing's own is refused.
	PageSize uint64
}

// What a block's accessors have to do beyond touching memory.
const (
	stateMissing = 1 << iota // some page may be absent: look before touching
	stateLogging             // mark what is written
)

// Block is a RAM block: one host mapping, with its presence and dirty bitmaps.
// Its methods may be called from any goroutine, except that Expect, Discard,
// Complete, StartDirtyLog, StopDirtyLog and Close are for one owner at a time.
type Block struct {
	name     string
	backing  Backing
	size     uint64
	pageSize uint64
	mapping  mapping

	state    atomic.Uint32
	presence presence
	dirty    *Bitmap
}

// NewBlock maps size bytes of guest RAM, all zero. size is a multiple of the
// page size. The host's memory is taken page by page as it is touched, except
// that a Hugetlb block reserves its pages at once.
func NewBlock(name string, size uint64, o BlockOptions) (*Block, error) {
	own := hostPage
	if o.Backing == Hugetlb {
		own = hugePage
	}
	if o.PageSize == 0 {
		o.PageSize = own
	}
	switch {
	case o.Backing < Anonymous || o.Backing > Hugetlb:
		return nil, fmt.Errorf("RAM block %q: unknown %v", name, o.Backing)
	case o.PageSize != own:
		return nil, fmt.Errorf("RAM block %q: page size %d: %v memory has pages of %d bytes", name, o.PageSize, o.Backing, own)
	case size == 0 || size > math.MaxInt64/2:
		return nil, fmt.Errorf("RAM block %q: size %d: %w", name, size, ErrOutOfRange)
	case size%own != 0:
		return nil, fmt.Errorf("RAM block %q: size %d: %w to %d bytes", name, size, ErrMisaligned, own)
	}
	m, err := newMapping(name, size, o.Backing)
	if err != nil {
		return nil, fmt.Errorf("RAM block %q of %d MiB, %v: %w", name, size>>20, o.Backing, err)
	}
	b := &Block{
		name: name, backing: o.Backing, size: size, pageSize: own, mapping: m,
		dirty: NewBitmap(size / hostPage),
	}
	b.presence.init(size / own)
	return b, nil
}

// Name identifies the block on the wire.
func (b *Block) Name() string { return b.name }

// Size in bytes.
func (b *Block) Size() uint64 { return b.size }

// PageSize is the host's page size for this block in bytes: the unit of the
// presence bitmap.
func (b *Block) PageSize() uint64 { return b.pageSize }

// Pages is the number of pages of PageSize.
func (b *Block) Pages() uint64 { return b.size / b.pageSize }

// Addr is the host virtual address of the first byte, for KVM and userfaultfd.
// It is aligned to 2 MiB and stays the same until Close.
func (b *Block) Addr() uintptr { return b.mapping.addr }

// Backing is the kind of host memory.
func (b *Block) Backing() Backing { return b.backing }

// View gives n bytes of the mapping itself, from off on, for reading RAM in
// bulk without a copy: the migration source's way. It is refused while pages
// may be missing, and a view taken before Expect must not be used after it.
// Writes through it are not marked dirty.
func (b *Block) View(off, n uint64) ([]byte, error) {
	if err := b.check(off, n); err != nil {
		return nil, err
	}
	if b.state.Load()&stateMissing != 0 {
		return nil, fmt.Errorf("RAM block %q: view of [%#x, +%#x): %w", b.name, off, n, ErrAbsent)
	}
	return b.mapping.mem[off : off+n : off+n], nil
}

// check reports a range of bytes that isn't inside the block.
func (b *Block) check(off, n uint64) error {
	if n > b.size || off > b.size-n {
		return fmt.Errorf("RAM block %q: [%#x, +%#x) of %#x bytes: %w", b.name, off, n, b.size, ErrOutOfRange)
	}
	return nil
}

// Close unmaps the block. Whoever waits for a page, and every access from now
// on, gets ErrClosed.
//
// Preconditions: no vCPU runs on it, no View of it is in use, and no accessor
// is copying.
func (b *Block) Close() error {
	b.state.Or(stateMissing)
	b.presence.close()
	if err := b.mapping.close(); err != nil {
		return fmt.Errorf("RAM block %q: unmap: %w", b.name, err)
	}
	return nil
}
