package kvm

import "fmt"

// IOEventFD is a guest address whose writes signal an eventfd in place of an
// exit to user space.
type IOEventFD struct {
	Addr uint64 // guest-physical, or a port
	Size uint32 // of the write in bytes: 1, 2, 4, 8, or 0 for any
	FD   int
	PIO  bool // Addr is a port
	// Match, if not nil, limits it to writes of this value.
	Match *uint64
}

// AssignIOEventFD starts the signalling.
func (vm *VM) AssignIOEventFD(e IOEventFD) error {
	return vm.ioEventFD(e, 0)
}

// DeassignIOEventFD undoes AssignIOEventFD with the same argument: such writes
// exit to user space again.
func (vm *VM) DeassignIOEventFD(e IOEventFD) error {
	const deassign = 1 << 2 // KVM_IOEVENTFD_FLAG_DEASSIGN
	return vm.ioEventFD(e, deassign)
}

func (vm *VM) ioEventFD(e IOEventFD, flags uint32) error {
	const (
		flagDatamatch = 1 << 0 // KVM_IOEVENTFD_FLAG_DATAMATCH
		flagPIO       = 1 << 1 // KVM_IOEVENTFD_FLAG_PIO
	)
	a := ioeventfd{addr: e.Addr, len: e.Size, fd: int32(e.FD), flags: flags}
	space := "MMIO"
	if e.PIO {
		a.flags |= flagPIO
		space = "port"
	}
	if e.Match != nil {
		a.flags |= flagDatamatch
		a.datamatch = *e.Match
	}
	if _, err := ioctlPtr(vm.fd, assignIOEventFD, &a); err != nil {
		return fmt.Errorf("eventfd %d for %s %#x size %d: %w", e.FD, space, e.Addr, e.Size, err)
	}
	return nil
}
