package kvm

import "fmt"

// CoalesceMMIO has KVM keep the guest's writes to [addr, addr+size) in a ring,
// in place of an exit to user space for each. A write finds no room once 169
// are kept, and exits; older kernels (6.1 for one) miscount, and take the ring
// for full at some place with no more than 85. Nobody is told of what is kept:
// see MMIORing.
//
// Preconditions: the VM has an MMIORing.
func (vm *VM) CoalesceMMIO(addr uint64, size uint32) error {
	z := coalescedZone{addr: addr, size: size}
	if _, err := ioctlPtr(vm.fd, registerCoalesced, &z); err != nil {
		return fmt.Errorf("MMIO [%#x, +%#x): %w", addr, size, err)
	}
	return nil
}

// MMIORing is the ring of the vCPU's VM, of which there is one, whichever vCPU
// is asked for it; nil if this KVM has none (CapCoalescedMMIO). It is there as
// long as the vCPU.
func (v *VCPU) MMIORing() (*MMIORing, error) {
	page, err := v.vm.Capability(CapCoalescedMMIO)
	if err != nil || page == 0 {
		return nil, err
	}
	if end := (page + 1) * pageSize; end > len(v.run) {
		return nil, v.errorf("%v: the ring is page %d of %d bytes", CapCoalescedMMIO, page, len(v.run))
	}
	return newMMIORing(v.run[page*pageSize:][:pageSize]), nil
}
