package kvm

import (
	"fmt"
	"slices"
)

// MSRs by number (Intel SDM volume 4, AMD APM volume 2 appendix A, and the
// kernel's kvm_para.h for those of KVM).
const (
	msrTSC          = 0x10
	msrSysenterCS   = 0x174
	msrSysenterESP  = 0x175
	msrSysenterEIP  = 0x176
	msrPAT          = 0x277
	msrSTAR         = 0xc0000081
	msrLSTAR        = 0xc0000082
	msrCSTAR        = 0xc0000083
	msrSFMask       = 0xc0000084
	msrKernelGSBase = 0xc0000102
)

// essentialMSRs are those that every 64-bit processor has and every 64-bit
// operating system relies on. FS, GS, EFER and the APIC base are in Sregs2.
var essentialMSRs = []uint32{
	msrSysenterCS, msrSysenterESP, msrSysenterEIP, msrPAT,
	msrSTAR, msrLSTAR, msrCSTAR, msrSFMask, msrKernelGSBase,
}

// extraMSRs are ranges that hold guest state and that the kernel's index list
// leaves out, always or in some versions: first and count.
var extraMSRs = [][2]uint32{
	{0x11, 2},       // kvmclock: wall clock and system time, the old numbers
	{0x4b564d00, 8}, // kvmclock, async page fault, steal time, PV EOI, poll control
	{0x200, 16},     // MTRRs: variable ranges
	{0x250, 1},      // fixed ranges
	{0x258, 2},
	{0x268, 8},
	{0x2ff, 1},   // and their default type
	{0x400, 128}, // machine check banks: control, status, address, misc of 32
}

// Hyper-V's synthetic MSRs, which KVM's list has too. Guests here are shown KVM's
// own paravirtual interface, never Hyper-V's: there is no state in these, and a
// destination need not have them.
const (
	msrHyperVFirst = 0x40000000
	msrHyperVLast  = 0x400001ff
)

// msrToSave is an MSR that SaveState asks for.
type msrToSave struct {
	index     uint32
	essential bool
}

// saveList joins the kernel's list with what it leaves out. The TSC is not in
// it: it moves while it is read, and so has its own place in the state.
func saveList(kernel []uint32) []msrToSave {
	indices := slices.Concat(essentialMSRs, kernel)
	for _, r := range extraMSRs {
		for i := range r[1] {
			indices = append(indices, r[0]+i)
		}
	}
	slices.Sort(indices)
	indices = slices.Compact(indices)

	list := make([]msrToSave, 0, len(indices))
	for _, i := range indices {
		if i != msrTSC && (i < msrHyperVFirst || i > msrHyperVLast) {
			list = append(list, msrToSave{i, slices.Contains(essentialMSRs, i)})
		}
	}
	return list
}

// readMSRs reads the listed MSRs. KVM stops at the first that it refuses. The
// list is the host's, not this vCPU's: KVM refuses what the vCPU's CPUID does
// not offer. What it refuses to us it refuses to the guest's RDMSR and WRMSR
// too, so there is nothing of the guest's in such an MSR and it is left out.
// The exceptions are the essential ones, which no guest's CPUID takes away: one
// of them refused means that this host cannot be saved from, and is an error.
func (v *VCPU) readMSRs(list []msrToSave) ([]MSR, error) {
	read := make([]MSR, 0, len(list))
	for len(list) > 0 {
		n := min(len(list), msrBatch)
		batch := &msrs{nmsrs: uint32(n)}
		for i, m := range list[:n] {
			batch.entries[i].Index = m.index
		}
		done, err := callCount(v, getMSRs, batch)
		if err != nil {
			return nil, err
		}
		read = append(read, batch.entries[:done]...)
		if done < n {
			if refused := list[done]; refused.essential {
				return nil, v.errorf("%s: MSR %#x refused, without which no guest can be saved", getMSRs.name, refused.index)
			}
			done++
		}
		list = list[done:]
	}
	return read, nil
}

// SetMSRs writes model-specific registers, as firmware would before it starts a
// kernel: KVM_SET_MSRS. One that KVM refuses is an error that names it, unless
// it has the value already.
func (v *VCPU) SetMSRs(list []MSR) error { return v.writeMSRs(list) }

// writeMSRs writes them all. One that KVM refuses is an error that names it,
// but for two kinds: it has the value already (some are read-only), or this host
// does not have it and the value is 0, as of a feature that the other host's
// kernel knows and that the guest, by its CPUID, does not have.
func (v *VCPU) writeMSRs(list []MSR) error {
	for len(list) > 0 {
		n := min(len(list), msrBatch)
		batch := &msrs{nmsrs: uint32(n)}
		copy(batch.entries[:], list[:n])
		done, err := callCount(v, setMSRs, batch)
		if err != nil {
			return err
		}
		if done < n {
			if err := v.checkRefused(list[done]); err != nil {
				return err
			}
			done++
		}
		list = list[done:]
	}
	return nil
}

// checkRefused decides about an MSR that cannot be written.
func (v *VCPU) checkRefused(m MSR) error {
	now, err := v.readMSRs([]msrToSave{{index: m.Index}})
	if err != nil {
		return err
	}
	has := "which this host does not have for this guest"
	current := uint64(0)
	if len(now) > 0 {
		current = now[0].Value
		has = fmt.Sprintf("which is %#x", current)
	}
	if current == m.Value {
		return nil
	}
	return v.errorf("%s: MSR %#x, %s, refused the value %#x", setMSRs.name, m.Index, has, m.Value)
}
