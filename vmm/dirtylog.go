package vmm

import (
	"errors"
	"fmt"
	"slices"

	"microvm/guest"
	"microvm/kvm"
	"microvm/memslot"
)

// This file is the dirty log of a VM that moves while it runs. vCPUs' writes
// are logged by KVM, slot by slot; devices' writes by the RAM block. A bit
// stands for a page of 4096 bytes in both.

// pageSize is the page of the dirty log in bytes, and of every guest.
const pageSize = 4096

// protectManually has KVM write-protect pages when they are cleared in the
// log, not when it is read or begins, so that vCPUs never wait for all of
// memory to be gone through.
func (vm *VM) protectManually() error {
	flags, err := vm.kvm.Capability(kvm.CapManualDirtyLogProtect2)
	if err != nil {
		return err
	}
	const enable, initiallySet = 1, 2 // KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE, KVM_DIRTY_LOG_INITIALLY_SET
	if flags&enable == 0 {
		return errors.New("KVM on this host has no manual dirty log protection; use Linux 5.2 or newer")
	}
	return vm.kvm.EnableCap(kvm.CapManualDirtyLogProtect2, uint64(flags&(enable|initiallySet)))
}

// StartDirtyLog begins to log writes to guest memory.
func (vm *VM) StartDirtyLog() error {
	if err := vm.ram.StartDirtyLog(); err != nil {
		return err
	}
	for i := range vm.regions {
		if err := vm.mem.SetFlags(uint32(i), kvm.MemLogDirtyPages); err != nil {
			return err
		}
	}
	return nil
}

// StopDirtyLog ends it.
func (vm *VM) StopDirtyLog() error {
	vm.ram.StopDirtyLog()
	for i := range vm.regions {
		if err := vm.mem.SetFlags(uint32(i), 0); err != nil {
			return err
		}
	}
	return nil
}

// DirtyPages adds to dirty[0] the pages that were written since the log began
// or since ClearDirty.
func (vm *VM) DirtyPages(dirty []*memslot.Bitmap) error {
	into := dirty[0].Words()
	for i, r := range vm.regions {
		log := make([]uint64, (r.Size/pageSize+63)/64)
		if err := vm.kvm.DirtyLog(uint32(i), log); err != nil {
			return err
		}
		for j, word := range log {
			if word != 0 {
				into[r.Offset/pageSize/64+uint64(j)].Or(word)
			}
		}
	}
	for i := range vm.ram.Dirty().Words() {
		if word := vm.ram.Dirty().Words()[i].Swap(0); word != 0 {
			into[i].Or(word)
		}
	}
	return nil
}

// ClearDirty has KVM log writes anew to the pages whose bits are set in mask,
// which begins at page first of RAM block number block.
func (vm *VM) ClearDirty(block int, first uint64, mask []uint64) error {
	i := slices.IndexFunc(vm.regions, func(r guest.RAMRegion) bool {
		return first*pageSize >= r.Offset && first*pageSize < r.Offset+r.Size
	})
	if block != 0 || i < 0 {
		return fmt.Errorf("clear the dirty log of RAM block %d from page %d: there is none", block, first)
	}
	r := vm.regions[i]
	at := first - r.Offset/pageSize
	return vm.kvm.ClearDirtyLog(uint32(i), at, min(uint64(len(mask))*64, r.Size/pageSize-at), mask)
}
