package vmm

import (
	"fmt"

	"microvm/kvm"
)

// kvmState is the state that KVM keeps of the VM as a whole, as a
// migration.Snapshotter.
type kvmState struct {
	vm *kvm.VM
	// clockStands: its clock is not set ahead by the time for which it was nowhere.
	clockStands bool
}

func (kvmState) ID() string      { return "kvm" }
func (kvmState) Version() uint32 { return kvm.VMStateVersion }

func (s kvmState) Save() ([]byte, error) {
	state, err := s.vm.SaveState()
	if err != nil {
		return nil, err
	}
	return state.MarshalBinary()
}

func (s kvmState) Load(version uint32, b []byte) error {
	if err := checkVersion(s.ID(), version, s.Version()); err != nil {
		return err
	}
	var state kvm.VMState
	if err := state.UnmarshalBinary(b); err != nil {
		return fmt.Errorf("%s: %w", s.ID(), err)
	}
	if s.clockStands {
		state.StopClock()
	}
	return s.vm.LoadState(&state)
}

// cpuState is a vCPU's state, as a migration.Snapshotter.
type cpuState struct{ cpu *kvm.VCPU }

func (s cpuState) ID() string    { return fmt.Sprintf("cpu%d", s.cpu.ID()) }
func (cpuState) Version() uint32 { return kvm.VCPUStateVersion }

func (s cpuState) Save() ([]byte, error) {
	state, err := s.cpu.SaveState()
	if err != nil {
		return nil, err
	}
	return state.MarshalBinary()
}

func (s cpuState) Load(version uint32, b []byte) error {
	if err := checkVersion(s.ID(), version, s.Version()); err != nil {
		return err
	}
	var state kvm.VCPUState
	if err := state.UnmarshalBinary(b); err != nil {
		return fmt.Errorf("%s: %w", s.ID(), err)
	}
	return s.cpu.LoadState(&state)
}

// checkVersion refuses state in a format that this program does not know.
func checkVersion(id string, theirs, ours uint32) error {
	if theirs != ours {
		return fmt.Errorf("%s: state of version %d, this program has version %d", id, theirs, ours)
	}
	return nil
}
