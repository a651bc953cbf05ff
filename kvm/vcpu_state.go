package kvm

import (
	"errors"
	"fmt"
	"slices"
)

// VCPUState is all that makes a vCPU, as KVM's own structures. It goes from one
// host to another by MarshalBinary and UnmarshalBinary.
type VCPUState struct {
	CPUID     []CPUIDEntry
	TSC       TSCState
	MPState   MPState
	Events    VCPUEvents
	Regs      Regs
	Sregs     Sregs2
	XCRs      XCRs
	XSave     []byte // an XSAVE area in the standard format, at least 4096 bytes
	DebugRegs DebugRegs
	LAPIC     LAPICState
	MSRs      []MSR
}

// SaveState reads the whole vCPU.
//
// Preconditions: the vCPU has a local APIC (CreateIRQChip); no vCPU of the VM
// is running; the last exit of this one is complete (CompleteExit).
//
// The order matters where reading changes what is read later:
//
//   - MP_STATE first: KVM has the vCPU take a pending INIT or SIPI, and that
//     resets registers, the local APIC and pending events.
//   - VCPU_EVENTS next: KVM delivers the payload of a pending exception, which
//     writes CR2 (#PF) or DR6 (#DB); so it comes before SREGS and DEBUGREGS.
//   - LAPIC before MSRs: KVM moves posted interrupts into the registers, and
//     with them decides the deadline timer's MSR.
//   - The rest in any order. The TSC is read next to the clock that it is
//     compared with on the other side.
//
// CPUID is what SetCPUID was given. The bits in it that follow the guest's
// registers are not saved: KVM works them out anew when these are set.
func (v *VCPU) SaveState() (*VCPUState, error) {
	if v.unfinished {
		return nil, v.errorf("save: %w", errUnfinished)
	}
	s := new(VCPUState)
	var err error
	if s.MPState, err = v.MPState(); err != nil {
		return nil, err
	}
	if err := call(v, getVCPUEvents, &s.Events); err != nil {
		return nil, err
	}
	if err := call(v, getRegs, &s.Regs); err != nil {
		return nil, err
	}
	sregs, err := v.sregs2()
	if err != nil {
		return nil, err
	}
	s.Sregs = *sregs
	if err := v.checkNested(sregs); err != nil {
		return nil, err
	}
	if s.XSave, err = v.xsave(); err != nil {
		return nil, err
	}
	if err := call(v, getXCRs, &s.XCRs); err != nil {
		return nil, err
	}
	if err := call(v, getDebugRegs, &s.DebugRegs); err != nil {
		return nil, err
	}
	if err := call(v, getLAPIC, &s.LAPIC); err != nil {
		return nil, err
	}
	if s.MSRs, err = v.readMSRs(v.vm.msrs); err != nil {
		return nil, err
	}
	s.CPUID = slices.Clone(v.cpuid)
	tsc, err := v.tsc()
	if err != nil {
		return nil, err
	}
	s.TSC = *tsc
	return s, nil
}

var (
	errUnfinished = errors.New("the last exit is not complete; call CompleteExit")
	errNoVM       = errors.New("the VM's state must be loaded first; the TSC goes on by its clock")
)

// LoadState makes the vCPU what another was when it was saved.
//
// Preconditions: the VM has its memory, its interrupt controllers and all its
// vCPUs; VM.LoadState was called; the vCPU has not run, or is the one that was
// saved.
//
// The order, and why:
//
//  1. CPUID, unless the vCPU has it already: the rest is checked against it
//     (bits of CR4 and XCR0, MSRs, the size of the XSAVE area).
//  2. TSC frequency: before anything that counts in TSC cycles.
//  3. SREGS2: the mode the vCPU is in, and the APIC base, which decides whether
//     the local APIC's registers are read as xAPIC's or x2APIC's.
//  4. REGS. They drop a pending exception: before VCPU_EVENTS.
//  5. XCRS, then XSAVE, whose components XCR0 names; DEBUGREGS.
//  6. LAPIC: the mode of its timer must be known before the MSRs, or the write
//     to the TSC deadline is ignored.
//  7. TSC: before the MSRs, for the deadline arms a timer by the guest's TSC.
//  8. MSRs. The kvmclock wall clock is written into guest memory here, from the
//     VM's clock; that page may have to be waited for.
//  9. MP_STATE: after SREGS, by which a vCPU at the reset vector would be woken.
//  10. VCPU_EVENTS: last, on top of all that would have changed or dropped them.
//  11. The I/O APIC once more: what VM.LoadState made it deliver, step 6 has
//     overwritten. An interrupt that the local APIC has already is merged.
func (v *VCPU) LoadState(s *VCPUState) error {
	if v.unfinished {
		return v.errorf("load: %w", errUnfinished)
	}
	if v.vm.restored == nil {
		return v.errorf("load: %w", errNoVM)
	}
	for _, step := range []func() error{
		func() error { return v.SetCPUID(s.CPUID) },
		func() error { return v.SetTSCKHz(s.TSC.KHz) },
		func() error { return v.setSregs2(&s.Sregs) },
		func() error { return v.SetRegs(&s.Regs) },
		func() error { return call(v, setXCRs, &s.XCRs) },
		func() error { return v.setXSave(s.XSave) },
		func() error { return call(v, setDebugRegs, &s.DebugRegs) },
		func() error { return call(v, setLAPIC, &s.LAPIC) },
		func() error { return v.setTSC(&s.TSC) },
		func() error { return v.writeMSRs(s.MSRs) },
		func() error { return v.SetMPState(s.MPState) },
		func() error { return call(v, setVCPUEvents, &s.Events) },
		func() error { return v.vm.setIRQChip(ChipIOAPIC, &v.vm.restored.ioapic) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("load: %w", err)
		}
	}
	return nil
}

// sregs2 reads SREGS2, or on a kernel before 5.14 SREGS. What SREGS lacks are
// the PDPTRs, which KVM can read from memory again. What it has more, the
// vector being injected, is in VCPU_EVENTS too.
func (v *VCPU) sregs2() (*Sregs2, error) {
	if n, err := v.vm.Capability(CapSregs2); err != nil {
		return nil, err
	} else if n > 0 {
		return get[Sregs2](v, getSregs2)
	}
	s, err := v.Sregs()
	if err != nil {
		return nil, err
	}
	return &Sregs2{
		CS: s.CS, DS: s.DS, ES: s.ES, FS: s.FS, GS: s.GS, SS: s.SS, TR: s.TR, LDT: s.LDT,
		GDT: s.GDT, IDT: s.IDT, CR0: s.CR0, CR2: s.CR2, CR3: s.CR3, CR4: s.CR4, CR8: s.CR8,
		EFER: s.EFER, APICBase: s.ApicBase,
	}, nil
}

// setSregs2 is the reverse.
func (v *VCPU) setSregs2(s *Sregs2) error {
	if n, err := v.vm.Capability(CapSregs2); err != nil {
		return err
	} else if n > 0 {
		return call(v, setSregs2, s)
	}
	return v.SetSregs(&Sregs{
		CS: s.CS, DS: s.DS, ES: s.ES, FS: s.FS, GS: s.GS, SS: s.SS, TR: s.TR, LDT: s.LDT,
		GDT: s.GDT, IDT: s.IDT, CR0: s.CR0, CR2: s.CR2, CR3: s.CR3, CR4: s.CR4, CR8: s.CR8,
		EFER: s.EFER, ApicBase: s.APICBase,
	})
}

// checkNested refuses a guest that is itself a hypervisor: the state of its own
// guests (KVM_GET_NESTED_STATE) is not part of VCPUState.
func (v *VCPU) checkNested(s *Sregs2) error {
	const (
		cr4VMXE  = 1 << 13
		eferSVME = 1 << 12
	)
	if s.CR4&cr4VMXE != 0 || s.EFER&eferSVME != 0 {
		return v.errorf("save: the guest has turned on nested virtualization (CR4 %#x, EFER %#x), whose state cannot be saved; "+
			"mask VMX and SVM in its CPUID", s.CR4, s.EFER)
	}
	return nil
}
