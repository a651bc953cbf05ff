package kvm

import (
	"fmt"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
)

// VMState is what KVM holds of a VM beside its vCPUs and its memory. It goes
// from one host to another by MarshalBinary and UnmarshalBinary.
type VMState struct {
	PICMaster IRQChip
	PICSlave  IRQChip
	IOAPIC    IRQChip
	PIT       PITState
	Clock     ClockData // kvmclock
}

// restoredVM is what a vCPU's LoadState needs of the VM's.
type restoredVM struct {
	was, is ClockData // the clock at the save, and after the load
	ioapic  IRQChip
}

// SaveState reads the VM's devices.
//
// Preconditions: CreateIRQChip and CreatePIT were called; no vCPU is running.
//
// The PIT's timer ticks even now. It is read before the PICs and the I/O APIC,
// so that a tick in between is seen in them, and the vCPUs after all of them,
// for the same reason. The clock is read last: it is what the time on the way
// is measured from.
func (vm *VM) SaveState() (*VMState, error) {
	s := new(VMState)
	if _, err := ioctlPtr(vm.fd, getPIT2, &s.PIT); err != nil {
		return nil, fmt.Errorf("save PIT: %w", err)
	}
	for _, c := range s.chips() {
		c.chip.ChipID = c.id
		if _, err := ioctlPtr(vm.fd, getIRQChip, c.chip); err != nil {
			return nil, fmt.Errorf("save %s: %w", c.name, err)
		}
	}
	clock, err := vm.clock()
	if err != nil {
		return nil, err
	}
	s.Clock = *clock
	return s, nil
}

// LoadState makes the VM's devices what they were, and sets its clock.
//
// Preconditions: CreateIRQChip and CreatePIT were called; all vCPUs are created,
// for with all of them there KVM keeps the clock by the host's TSC, and only
// then tells both together, which VCPU.LoadState wants; none has run.
//
// The interrupt controllers come before the PIT, which drives them. kvmclock
// goes on from where it was, and if both hosts offer it (KVM_CLOCK_REALTIME,
// Linux 5.16) by the time that has passed since, as CLOCK_REALTIME has it: the
// hosts' clocks should be synchronized. A host whose clock is behind, or a
// kernel without it, makes that time zero; the clock never goes back.
func (vm *VM) LoadState(s *VMState) error {
	for _, c := range s.chips() {
		if err := vm.setIRQChip(c.id, c.chip); err != nil {
			return fmt.Errorf("load %s: %w", c.name, err)
		}
	}
	if _, err := ioctlPtr(vm.fd, setPIT2, &s.PIT); err != nil {
		return fmt.Errorf("load PIT: %w", err)
	}
	offered, err := vm.Capability(CapAdjustClock) // a mask of flags
	if err != nil {
		return err
	}
	c := ClockData{
		Clock:    s.Clock.Clock,
		Flags:    s.Clock.Flags & uint32(gokvm.Realtime) & uint32(offered),
		Realtime: s.Clock.Realtime,
	}
	if _, err := ioctlPtr(vm.fd, setClock, &c); err != nil {
		return fmt.Errorf("load clock: %w", err)
	}
	is, err := vm.clock()
	if err != nil {
		return err
	}
	vm.restored = &restoredVM{was: s.Clock, is: *is, ioapic: s.IOAPIC}
	return nil
}

// StopClock has LoadState make kvmclock go on from where it was, however long ago that
// is: for a state that lay in a file, not on the way between hosts.
func (s *VMState) StopClock() { s.Clock.Flags &^= uint32(gokvm.Realtime) }

// namedChip is one of the interrupt controllers of a VMState.
type namedChip struct {
	id   uint32
	name string
	chip *IRQChip
}

func (s *VMState) chips() []namedChip {
	return []namedChip{
		{ChipPICMaster, "PIC master", &s.PICMaster},
		{ChipPICSlave, "PIC slave", &s.PICSlave},
		{ChipIOAPIC, "IOAPIC", &s.IOAPIC},
	}
}

// setIRQChip writes a controller's state; its id is what the caller says it is.
func (vm *VM) setIRQChip(id uint32, state *IRQChip) error {
	chip := *state
	chip.ChipID = id
	_, err := ioctlPtr(vm.fd, setIRQChip, &chip)
	return err
}

func (vm *VM) clock() (*ClockData, error) {
	c := new(ClockData)
	if _, err := ioctlPtr(vm.fd, getClock, c); err != nil {
		return nil, err
	}
	return c, nil
}
