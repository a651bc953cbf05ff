package memslot

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"microvm/kvm"
)

// RegionSetter is KVM's side of a slot: KVM_SET_USER_MEMORY_REGION. *kvm.VM is
// one; its errors name the slot.
type RegionSetter interface {
	SetUserMemoryRegion(kvm.MemoryRegion) error
}

// Slots is the set of a VM's memory slots, ours and KVM's kept the same. Find
// takes no lock and may be called from anywhere; changes are serialized.
//
// A change that is refused, by a check here or by KVM, changes nothing.
type Slots struct {
	setter RegionSetter
	max    int
	table  atomic.Pointer[table]

	// mu is held while a new table is made, told to KVM and published.
	mu sync.Mutex
}

// NewSlots returns an empty set for slot ids below max, which is what
// KVM_CAP_NR_MEMSLOTS says (32764 on x86).
func NewSlots(setter RegionSetter, max int) *Slots {
	s := &Slots{setter: setter, max: min(max, math.MaxInt16)}
	s.table.Store(newTable(s.max))
	return s
}

// Find returns the slot that has the guest frame, or nil.
func (s *Slots) Find(gfn uint64) *Slot { return s.table.Load().find(gfn) }

// All returns the slots from the highest frame to the lowest. The array is not
// to be changed.
func (s *Slots) All() []Slot { return s.table.Load().slots }

// Create adds a slot.
func (s *Slots) Create(r kvm.MemoryRegion) error { return s.create(r, nil, 0) }

func (s *Slots) create(r kvm.MemoryRegion, b *Block, offset uint64) error {
	slot, err := slotOf(r)
	if err != nil {
		return err
	}
	slot.block, slot.offset = b, offset
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.table.Load()
	if int64(slot.ID) >= int64(s.max) {
		return fmt.Errorf("%v: %w: ids are below %d", &slot, ErrSlotLimit, s.max)
	}
	if t.index[slot.ID] >= 0 {
		return fmt.Errorf("%v: %w", &slot, ErrSlotExists)
	}
	if err := t.checkOverlap(&slot); err != nil {
		return err
	}
	t = t.clone(1)
	t.create(slot)
	return s.commit("create", t, slot.region())
}

// Move puts a slot at another guest-physical address. Its size and its host
// memory stay, since KVM cannot change either in place.
func (s *Slots) Move(id uint32, gpa uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, t, err := s.lookup(id)
	if err != nil {
		return err
	}
	slot := t.slots[i]
	if err := checkRange(gpa, slot.Size()); err != nil {
		return fmt.Errorf("%v: move to %#x: %w", &slot, gpa, err)
	}
	slot.BaseGFN = gpa >> frameShift
	if err := t.checkOverlap(&slot); err != nil {
		return err
	}
	t = t.clone(0)
	t.move(i, slot)
	return s.commit("move", t, slot.region())
}

// SetFlags changes a slot's flags; kvm.MemReadonly is fixed at creation.
func (s *Slots) SetFlags(id, flags uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, t, err := s.lookup(id)
	if err != nil {
		return err
	}
	slot := t.slots[i]
	if (slot.Flags^flags)&kvm.MemReadonly != 0 {
		return fmt.Errorf("%v: flags %#x to %#x: %w: delete the slot and create it anew", &slot, slot.Flags, flags, ErrReadOnly)
	}
	slot.Flags = flags
	t = t.clone(0)
	t.put(i, slot)
	return s.commit("change flags of", t, slot.region())
}

// Delete removes a slot.
func (s *Slots) Delete(id uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, t, err := s.lookup(id)
	if err != nil {
		return err
	}
	slot := t.slots[i]
	t = t.clone(0)
	t.delete(i)
	// KVM deletes a slot that is set to no size.
	region := slot.region()
	region.Size = 0
	return s.commit("delete", t, region)
}

// Preconditions: s.mu is held.
func (s *Slots) lookup(id uint32) (int, *table, error) {
	t := s.table.Load()
	if int64(id) >= int64(s.max) {
		return 0, nil, fmt.Errorf("memslot %d: %w: ids are below %d", id, ErrSlotLimit, s.max)
	}
	if t.index[id] < 0 {
		return 0, nil, fmt.Errorf("memslot %d: %w", id, ErrNoSlot)
	}
	return int(t.index[id]), t, nil
}

// checkOverlap compares with every slot but the one of the same id.
func (t *table) checkOverlap(s *Slot) error {
	for i := range t.slots {
		if o := &t.slots[i]; o.ID != s.ID && o.overlaps(s) {
			return fmt.Errorf("%v: %w %v", s, ErrOverlap, o)
		}
	}
	return nil
}

// commit tells KVM and, if it agrees, the readers.
//
// Preconditions: s.mu is held.
func (s *Slots) commit(verb string, t *table, r kvm.MemoryRegion) error {
	if err := s.setter.SetUserMemoryRegion(r); err != nil {
		return fmt.Errorf("%s %w", verb, err)
	}
	t.seal()
	s.table.Store(t)
	return nil
}
