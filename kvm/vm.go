package kvm

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// VM is one guest: memory slots, interrupt controllers, a clock.
type VM struct {
	fd       int
	mmapSize int
	msrs     []msrToSave

	// restored is what LoadState leaves for the vCPUs' LoadState.
	restored *restoredVM

	// mu guards pages, how many pages each memory slot has: as much as
	// KVM_GET_DIRTY_LOG writes into a bitmap, whose length it is not told.
	mu    sync.Mutex
	pages map[uint32]uint64
}

// pageSize is the unit of memory slots, dirty logs and guest frame numbers.
const pageSize = 4096

// Flags of a MemoryRegion.
const (
	MemLogDirtyPages = 1 << 0 // KVM_MEM_LOG_DIRTY_PAGES
	MemReadonly      = 1 << 1 // KVM_MEM_READONLY: guest writes exit as MMIO
)

// MemoryRegion is a memory slot: Size bytes of guest-physical memory at GPA,
// which are the process's memory at HVA. GPA, Size and HVA are multiples of
// the page size; Size 0 deletes the slot. It is struct
// kvm_userspace_memory_region.
type MemoryRegion struct {
	Slot  uint32
	Flags uint32
	GPA   uint64
	Size  uint64
	HVA   uint64
}

// SetUserMemoryRegion creates, moves, deletes or changes the flags of a slot.
// The memory at HVA must stay mapped as long as the slot exists.
func (vm *VM) SetUserMemoryRegion(r MemoryRegion) error {
	vm.mu.Lock()
	defer vm.mu.Unlock()

	if _, err := ioctlPtr(vm.fd, setUserMemoryRegion, &r); err != nil {
		return fmt.Errorf("memslot %d [%#x, +%#x) flags %#x: %w", r.Slot, r.GPA, r.Size, r.Flags, err)
	}
	if r.Size == 0 {
		delete(vm.pages, r.Slot)
	} else {
		vm.pages[r.Slot] = r.Size / pageSize
	}
	return nil
}

// SetTSSAddr gives KVM three pages of guest-physical address space below
// 4 GiB, not covered by a slot, which Intel hosts without unrestricted guest
// need for real mode. Call it before any vCPU is created.
func (vm *VM) SetTSSAddr(gpa uint32) error {
	if _, err := ioctl(vm.fd, setTSSAddr, uintptr(gpa)); err != nil {
		return fmt.Errorf("TSS at %#x: %w", gpa, err)
	}
	return nil
}

// SetIdentityMapAddr gives KVM one page for the same purpose. Call it before
// any vCPU is created.
func (vm *VM) SetIdentityMapAddr(gpa uint64) error {
	if _, err := ioctlPtr(vm.fd, setIdentityMapAddr, &gpa); err != nil {
		return fmt.Errorf("identity map at %#x: %w", gpa, err)
	}
	return nil
}

// Capability asks KVM_CHECK_EXTENSION of the VM, which for some capabilities
// answers more exactly than the system does.
func (vm *VM) Capability(c Cap) (int, error) {
	return capability(vm.fd, c)
}

// EnableCap turns on what a VM does not do by default. What the arguments (at
// most four) mean is c's own business.
func (vm *VM) EnableCap(c Cap, args ...uint64) error {
	a := enableCapArgs{cap: uint32(c)}
	if len(args) > len(a.args) {
		return fmt.Errorf("%v: %s takes %d arguments, got %d", c, enableCap.name, len(a.args), len(args))
	}
	copy(a.args[:], args)
	if _, err := ioctlPtr(vm.fd, enableCap, &a); err != nil {
		return fmt.Errorf("%v %v: %w", c, args, err)
	}
	return nil
}

// Close gives up the VM. The kernel frees it when its vCPUs are closed too.
func (vm *VM) Close() error {
	if err := unix.Close(vm.fd); err != nil {
		return fmt.Errorf("close VM: %w", err)
	}
	return nil
}
