package memslot

import (
	"fmt"
	"os"

	"microvm/kvm"
)

// A guest frame is 4 KiB on x86 whatever backs it.
const (
	frameShift = 12
	frameSize  = 1 << frameShift
)

// hostPage is what MISSING faults, MADV_DONTNEED and KVM's dirty log count in.
var hostPage = uint64(os.Getpagesize())

// Slot is one entry of the array: guest frames [BaseGFN, BaseGFN+Frames) are
// backed by host memory at HVA. It is never changed once it can be found.
type Slot struct {
	ID      uint32
	Flags   uint32 // kvm.MemLogDirtyPages, kvm.MemReadonly
	BaseGFN uint64
	Frames  uint64
	HVA     uint64

	// block and offset say the same as HVA in terms that an accessor can
	// use; nil for a slot that was created from a bare region.
	block  *Block
	offset uint64
}

// GPA is the first guest-physical address.
func (s *Slot) GPA() uint64 { return s.BaseGFN << frameShift }

// Size is the length in bytes.
func (s *Slot) Size() uint64 { return s.Frames << frameShift }

// contains relies on unsigned wrap-around: below the base the difference is
// huge.
func (s *Slot) contains(gfn uint64) bool { return gfn-s.BaseGFN < s.Frames }

func (s *Slot) overlaps(o *Slot) bool {
	return s.BaseGFN < o.BaseGFN+o.Frames && o.BaseGFN < s.BaseGFN+s.Frames
}

func (s *Slot) region() kvm.MemoryRegion {
	return kvm.MemoryRegion{Slot: s.ID, Flags: s.Flags, GPA: s.GPA(), Size: s.Size(), HVA: s.HVA}
}

func (s *Slot) String() string {
	return fmt.Sprintf("memslot %d [%#x, +%#x)", s.ID, s.GPA(), s.Size())
}

// slotOf checks a region by itself and turns it into a slot.
func slotOf(r kvm.MemoryRegion) (Slot, error) {
	s := Slot{
		ID: r.Slot, Flags: r.Flags, HVA: r.HVA,
		BaseGFN: r.GPA >> frameShift, Frames: r.Size >> frameShift,
	}
	if err := checkRange(r.GPA, r.Size); err != nil {
		return s, fmt.Errorf("memslot %d [%#x, +%#x): %w", r.Slot, r.GPA, r.Size, err)
	}
	if r.HVA%hostPage != 0 {
		return s, fmt.Errorf("%v: host address %#x: %w", &s, r.HVA, ErrMisaligned)
	}
	return s, nil
}

func checkRange(gpa, size uint64) error {
	switch {
	case gpa%hostPage != 0 || size%hostPage != 0:
		return fmt.Errorf("%w to %d bytes", ErrMisaligned, hostPage)
	case size == 0:
		return fmt.Errorf("empty: %w", ErrOutOfRange)
	case gpa+size < gpa:
		return fmt.Errorf("wraps around: %w", ErrOutOfRange)
	}
	return nil
}
