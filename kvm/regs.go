package kvm

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
)

// get reads a structure of a vCPU whole.
func get[T any](v *VCPU, r request) (*T, error) {
	t := new(T)
	if err := call(v, r, t); err != nil {
		return nil, err
	}
	return t, nil
}

// Regs reads the general-purpose registers, RIP and RFLAGS.
func (v *VCPU) Regs() (*Regs, error) { return get[Regs](v, getRegs) }

// SetRegs writes them. It drops an exception that was about to be delivered.
func (v *VCPU) SetRegs(r *Regs) error { return call(v, setRegs, r) }

// Sregs reads segments, descriptor tables, control registers, EFER and the
// APIC base.
func (v *VCPU) Sregs() (*Sregs, error) { return get[Sregs](v, getSregs) }

// SetSregs writes them.
func (v *VCPU) SetSregs(s *Sregs) error { return call(v, setSregs, s) }

// MPState reads the multiprocessing state. An INIT or SIPI that is pending is
// taken by the vCPU first, which may change its registers.
func (v *VCPU) MPState() (MPState, error) {
	s, err := get[MPState](v, getMPState)
	if err != nil {
		return 0, err
	}
	return *s, nil
}

// SetMPState writes it.
func (v *VCPU) SetMPState(s MPState) error { return call(v, setMPState, &s) }

// CPUID reads what the guest's CPUID instruction answers: what SetCPUID set, in
// which KVM keeps up some bits that follow the guest's registers. The count that
// goes in is exact, because kernels up to 6.1 at least do not say how many
// entries they gave.
func (v *VCPU) CPUID() ([]CPUIDEntry, error) {
	c := &cpuid2{nent: uint32(len(v.cpuid))}
	if err := call(v, getCPUID2, c); err != nil {
		return nil, err
	}
	return slices.Clone(c.entries[:len(v.cpuid)]), nil
}

// SetCPUID says what the guest's CPUID instruction answers, and so what the
// vCPU can do: registers, MSRs and XSAVE state are checked against it. KVM
// refuses a change once the vCPU has run. To set what is set costs nothing.
func (v *VCPU) SetCPUID(entries []CPUIDEntry) error {
	if len(entries) > maxCPUIDEntries {
		return v.errorf("%s: %d entries, at most %d", setCPUID2.name, len(entries), maxCPUIDEntries)
	}
	if len(entries) > 0 && slices.Equal(entries, v.cpuid) {
		return nil
	}
	c := &cpuid2{nent: uint32(len(entries))}
	copy(c.entries[:], entries)
	if err := call(v, setCPUID2, c); err != nil {
		return err
	}
	v.cpuid = slices.Clone(entries)
	return nil
}

// Translate walks the vCPU's page tables: ok says whether gva is mapped, gpa
// where. A page of the tables that is missing is waited for by the kernel.
func (v *VCPU) Translate(gva uint64) (gpa uint64, ok bool, err error) {
	t := gokvm.Translation{LinearAddress: gva}
	if err := call(v, translate, &t); err != nil {
		return 0, false, err
	}
	return t.PhysicalAddress, t.Valid != 0, nil
}

// KVMClockCtrl tells the guest's kvmclock that the vCPU was paused by the host,
// so that the guest's watchdogs do not take the gap for a lockup. A guest that
// does not use kvmclock cannot be told, and that is no error.
func (v *VCPU) KVMClockCtrl() error {
	if _, err := ioctl(v.fd, kvmclockCtrl, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return v.errorf("%w", err)
	}
	return nil
}
