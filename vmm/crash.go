package vmm

import (
	"fmt"

	"microvm/kvm"
)

// codeBytes is how much of the code at the instruction pointer a crash shows.
const codeBytes = 32

// crash describes an exit that ends the guest.
func (c *vcpu) crash(reason kvm.ExitReason) *CrashError {
	switch reason {
	case kvm.ExitShutdown:
		e := c.describe("triple fault")
		if e.isReset() {
			e.Reason += resetNote
		}
		return e
	case kvm.ExitInternalError:
		return c.describe(internalError(c.kvm.InternalError()))
	case kvm.ExitFailEntry:
		e := c.kvm.FailEntry()
		return c.describe(fmt.Sprintf("the processor refused to enter the guest: hardware reason %#x on host CPU %d", e.HardwareReason, e.HostCPU))
	}
	return c.describe(fmt.Sprintf("unexpected exit from KVM_RUN: %v", reason))
}

// resetNote explains a dump that shows nothing of what happened: an AMD
// processor leaves a vCPU's state undefined after a shutdown, so KVM resets it.
const resetNote = " (this processor loses the registers then, these are a reset's)"

// isReset says whether the vCPU is at the reset vector.
func (e *CrashError) isReset() bool {
	return e.Regs != nil && e.Sregs != nil && e.Sregs.CS.Base+e.Regs.RIP == 0xFFFF_FFF0
}

// describe gathers what is to be known of the vCPU. It is best effort: the
// vCPU is in trouble already, and what cannot be had stays out.
func (c *vcpu) describe(reason string) *CrashError {
	e := &CrashError{CPU: c.kvm.ID(), Reason: reason}
	if regs, err := c.kvm.Regs(); err == nil {
		e.Regs = regs
	}
	if sregs, err := c.kvm.Sregs(); err == nil {
		e.Sregs = sregs
	}
	if e.Regs != nil && e.Sregs != nil {
		e.Code = c.code(e.Sregs.CS.Base + e.Regs.RIP)
	}
	return e
}

// code reads guest memory at a linear address, at most to the end of its page.
func (c *vcpu) code(linear uint64) []byte {
	gpa, ok, err := c.kvm.Translate(linear)
	if err != nil || !ok {
		return nil
	}
	const page = 4096
	b := make([]byte, min(codeBytes, page-gpa%page))
	if c.vm.mem.ReadAt(b, gpa) != nil {
		return nil
	}
	return b
}

// internalError puts KVM's report in words.
func internalError(e kvm.InternalError) string {
	s := fmt.Sprintf("KVM internal error, suberror %d", e.Suberror)
	if len(e.Insn) > 0 {
		s += fmt.Sprintf(", instruction % x", e.Insn)
	}
	if len(e.Data) > 0 {
		s += fmt.Sprintf(", data %#x", e.Data)
	}
	return s
}

// crashed ends the VM, with the registers in the log.
func (vm *VM) crashed(e *CrashError) {
	vm.log.Error("guest crash", "err", e)
	vm.end(e, e.Error())
}
