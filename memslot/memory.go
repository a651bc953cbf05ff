package memslot

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"microvm/kvm"
)

// Memory is a VM's guest-physical address space, as far as it is RAM.
type Memory struct {
	slots *Slots

	mu     sync.Mutex // held while slots and blocks change together
	blocks []*Block
}

// NewMemory returns an empty address space whose slots go to rs. maxSlots is
// KVM_CAP_NR_MEMSLOTS.
func NewMemory(rs RegionSetter, maxSlots int) *Memory {
	return &Memory{slots: NewSlots(rs, maxSlots)}
}

// Map puts size bytes of b, from off on, at gpa, as memory slot number slot.
// gpa, off and size are multiples of the host's page. The block belongs to the
// Memory until its last slot is unmapped.
func (m *Memory) Map(slot uint32, gpa uint64, b *Block, off, size uint64, flags uint32) error {
	if err := b.check(off, size); err != nil {
		return fmt.Errorf("memslot %d at %#x: %w", slot, gpa, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := kvm.MemoryRegion{Slot: slot, Flags: flags, GPA: gpa, Size: size, HVA: uint64(b.Addr()) + off}
	if err := m.slots.create(r, b, off); err != nil {
		return err
	}
	if !slices.Contains(m.blocks, b) {
		m.blocks = append(m.blocks, b)
	}
	return nil
}

// Unmap removes a slot. A block without slots is the caller's again.
func (m *Memory) Unmap(slot uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.slots.Delete(slot); err != nil {
		return err
	}
	all := m.slots.All()
	m.blocks = slices.DeleteFunc(m.blocks, func(b *Block) bool {
		return !slices.ContainsFunc(all, func(s Slot) bool { return s.block == b })
	})
	return nil
}

// Move puts a slot at another guest-physical address.
func (m *Memory) Move(slot uint32, gpa uint64) error { return m.slots.Move(slot, gpa) }

// SetFlags changes a slot's flags, as when KVM's dirty log is to begin.
func (m *Memory) SetFlags(slot, flags uint32) error { return m.slots.SetFlags(slot, flags) }

// Size is the number of bytes of RAM.
func (m *Memory) Size() uint64 {
	var n uint64
	for _, s := range m.slots.All() {
		n += s.Size()
	}
	return n
}

// Blocks lists the blocks in the order in which they were first mapped.
func (m *Memory) Blocks() []*Block {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.blocks)
}

// Close closes every block.
//
// Preconditions: those of Block.Close. The slots need not be unmapped; the VM
// they belong to is gone or will not run again.
func (m *Memory) Close() error {
	var errs []error
	for _, b := range m.Blocks() {
		errs = append(errs, b.Close())
	}
	return errors.Join(errs...)
}

// ReadAt fills p with guest RAM from gpa on. The range may cross slots. It
// waits for pages that are missing.
//
// 2, 4 or 8 bytes that don't cross a slot are read at once. An error that is
// ErrOutOfRange leaves p as it was.
func (m *Memory) ReadAt(p []byte, gpa uint64) error {
	s := m.slots.Find(gpa >> frameShift)
	if s == nil || uint64(len(p)) > s.Size()-(gpa-s.GPA()) {
		return m.across("read", p, gpa, (*Block).read)
	}
	return s.block.read(p, s.offset+gpa-s.GPA())
}

// WriteAt puts p into guest RAM at gpa and marks it dirty, otherwise like
// ReadAt. A range with a byte in a read-only slot is refused as a whole.
func (m *Memory) WriteAt(p []byte, gpa uint64) error {
	s := m.slots.Find(gpa >> frameShift)
	if s == nil || uint64(len(p)) > s.Size()-(gpa-s.GPA()) || s.Flags&kvm.MemReadonly != 0 {
		return m.across("write", p, gpa, (*Block).write)
	}
	return s.block.write(p, s.offset+gpa-s.GPA())
}

// across is the access that isn't inside one slot, or is an error. The first
// walk looks whether all of the range is RAM, the second does it.
func (m *Memory) across(verb string, p []byte, gpa uint64, access func(*Block, []byte, uint64) error) error {
	for _, do := range []bool{false, true} {
		for at, rest := gpa, p; len(rest) > 0; {
			s := m.slots.Find(at >> frameShift)
			if s == nil || at < gpa {
				return fmt.Errorf("%s of %d bytes at guest-physical %#x: no RAM at %#x: %w", verb, len(p), gpa, at, ErrOutOfRange)
			}
			if verb == "write" && s.Flags&kvm.MemReadonly != 0 {
				return fmt.Errorf("write of %d bytes at guest-physical %#x: %v: %w", len(p), gpa, s, ErrReadOnly)
			}
			off := at - s.GPA()
			n := min(s.Size()-off, uint64(len(rest)))
			if do {
				if err := access(s.block, rest[:n], s.offset+off); err != nil {
					return err
				}
			}
			at, rest = at+n, rest[n:]
		}
	}
	return nil
}
