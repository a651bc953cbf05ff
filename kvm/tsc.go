package kvm

import (
	"math/bits"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
)

// TSCKHz is the frequency of the guest's TSC in kHz: the host's, or what
// SetTSCKHz has set.
func (v *VCPU) TSCKHz() uint32 { return v.tscKHz }

// tscTolerance is by how many parts in a million two TSCs may differ that count
// as equal. It is what KVM itself tolerates before it scales.
const tscTolerance = 250

// SetTSCKHz sets the frequency of the guest's TSC in kHz. On a host that cannot
// scale (CapTSCControl) it must be the host's own, give or take 250 ppm.
func (v *VCPU) SetTSCKHz(kHz uint32) error {
	now := v.tscKHz
	if now == kHz {
		return nil
	}
	scales, err := v.vm.Capability(CapTSCControl)
	if err != nil {
		return err
	}
	if scales == 0 {
		diff := max(now, kHz) - min(now, kHz)
		if uint64(diff)*1_000_000 <= uint64(now)*tscTolerance {
			return nil
		}
		return v.errorf("the guest's TSC runs at %d kHz, this host's at %d kHz, and this host cannot scale it", kHz, now)
	}
	if _, err := ioctl(v.fd, setTSCKHz, uintptr(kHz)); err != nil {
		return v.errorf("TSC of %d kHz on a host of %d kHz: %w", kHz, v.hostTSCKHz, err)
	}
	v.tscKHz = kHz
	return nil
}

// TSCState is a vCPU's time stamp counter, in the two ways in which it can be
// put on another host.
type TSCState struct {
	KHz uint32
	// Flags has TSCHasOffset if Offset is to be used.
	Flags uint32
	// Value is what the guest read when its kvmclock was Clock nanoseconds.
	Value uint64
	Clock uint64
	// Offset is the guest's TSC less the host's.
	Offset uint64
}

// TSCHasOffset is a flag of TSCState.
const TSCHasOffset = 1 << 0

// The vCPU attribute that holds the TSC offset (asm/kvm.h).
const (
	vcpuTSCCtrl   = 0 // KVM_VCPU_TSC_CTRL
	vcpuTSCOffset = 0 // KVM_VCPU_TSC_OFFSET
)

// hasTSCOffset says whether the guest's TSC is the host's plus an offset that
// KVM lets us read and write (Linux 5.16): with a frequency of its own it is
// scaled first, by a factor that KVM keeps to itself.
func (v *VCPU) hasTSCOffset(kHz uint32) bool {
	attr := newDeviceAttr(vcpuTSCCtrl, vcpuTSCOffset, nil)
	_, err := ioctlPtr(v.fd, hasDeviceAttr, &attr)
	return err == nil && kHz == v.hostTSCKHz
}

func (v *VCPU) tsc() (*TSCState, error) {
	kHz := v.tscKHz
	clock, err := v.vm.clock()
	if err != nil {
		return nil, err
	}
	m, err := v.readMSRs([]msrToSave{{index: msrTSC, essential: true}})
	if err != nil {
		return nil, err
	}
	s := &TSCState{KHz: kHz, Clock: clock.Clock, Value: m[0].Value}
	if v.hasTSCOffset(kHz) {
		s.Flags = TSCHasOffset
		attr := newDeviceAttr(vcpuTSCCtrl, vcpuTSCOffset, &s.Offset)
		if err := call(v, getDeviceAttr, &attr); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// setTSC makes the guest's TSC go on from where it was, by as much as the
// guest's kvmclock has gone on since.
//
// With the offset and, on both hosts, the host's TSC at a known kvmclock time,
// it is exact, and the same for all vCPUs, so that their TSCs stay in step: the
// kernel's Documentation/virt/kvm/devices/vcpu.rst, section 4.1, has the
// equation. It says that the guest TSC at which kvmclock was 0 is the same
// before and after:
//
//	offset' = offset + (clock' - clock) * kHz + hostTSC - hostTSC'
//
// Otherwise the TSC's value is written, which is off by the time the write
// takes. KVM takes writes that nearly agree to mean a common TSC for all vCPUs.
func (v *VCPU) setTSC(s *TSCState) error {
	was, is := &v.vm.restored.was, &v.vm.restored.is
	if s.Flags&TSCHasOffset != 0 && hasHostTSC(was) && hasHostTSC(is) && v.hasTSCOffset(s.KHz) {
		offset := s.offsetAt(was, is)
		attr := newDeviceAttr(vcpuTSCCtrl, vcpuTSCOffset, &offset)
		return call(v, setDeviceAttr, &attr)
	}
	now, err := v.vm.clock()
	if err != nil {
		return err
	}
	return v.writeMSRs([]MSR{{Index: msrTSC, Value: s.Value + cycles(s.Clock, now.Clock, s.KHz)}})
}

// offsetAt is the equation above.
func (s *TSCState) offsetAt(was, is *ClockData) uint64 {
	return s.Offset + cycles(was.Clock, is.Clock, s.KHz) + was.HostTSC - is.HostTSC
}

func hasHostTSC(c *ClockData) bool {
	return c.Flags&uint32(gokvm.HostTSC) != 0
}

// cycles is how often a counter of kHz ticks between two times in nanoseconds,
// and 0 if they are in the wrong order: no clock of the guest's goes back.
func cycles(from, to uint64, kHz uint32) uint64 {
	if to < from {
		return 0
	}
	hi, lo := bits.Mul64(to-from, uint64(kHz))
	q, _ := bits.Div64(hi%1_000_000, lo, 1_000_000)
	return q
}
