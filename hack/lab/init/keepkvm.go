package main

import (
	"fmt"

	"microvm/kvm"
)

// kept are the virtual machines that keepKVM made: nothing closes them while the lab is up.
var kept []*kvm.VM

// keepKVM makes two virtual machines that never run: one whose CPU has no local APIC, one whose CPU has one that is
// still off. They hold the counters up that KVM keeps in static keys (preempt_notifier_key, kvm_has_noapic_vcpu,
// apic_sw_disabled). Without them the first VM to come and the last one to go patch the kernel's code, that of the
// scheduler among it, and QEMU's emulation before 8.2 can miss the end of such a patch: it translates a page of code
// before it protects it, and goes on executing the breakpoint that stood there meanwhile. Every CPU is then caught in
// the handler of a breakpoint that no longer is.
func keepKVM() error {
	system, err := kvm.Open()
	if err != nil {
		return err
	}
	for _, apic := range []bool{false, true} {
		vm, err := system.CreateVM()
		if err != nil {
			return fmt.Errorf("making a VM to keep: %w", err)
		}
		if apic {
			if err := vm.CreateIRQChip(); err != nil {
				return err
			}
		}
		if _, err := vm.CreateVCPU(0); err != nil {
			return err
		}
		kept = append(kept, vm)
	}
	return nil
}
