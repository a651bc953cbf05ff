package kvm

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
)

// VCPU is one virtual processor. See the package comment for what threads may
// do with it.
type VCPU struct {
	vm  *VM
	id  int
	fd  int
	run []byte // struct kvm_run and what follows it, shared with the kernel

	// hostTSCKHz is the frequency KVM gave the vCPU at its creation: the
	// host's own, at which the guest's TSC is the host's plus an offset.
	// tscKHz is the guest's.
	hostTSCKHz, tscKHz uint32

	// cpuid is what SetCPUID set.
	cpuid []CPUIDEntry

	// unfinished is set while the last exit is one that KVM finishes on the
	// next KVM_RUN (it has still to put the answer into a register and move
	// on): state read now would have the instruction half done.
	unfinished bool
}

// CreateVCPU makes the vCPU with this id, which is also its APIC ID.
func (vm *VM) CreateVCPU(id int) (*VCPU, error) {
	fd, err := ioctl(vm.fd, createVCPU, uintptr(id))
	if err != nil {
		return nil, fmt.Errorf("vCPU %d: %w", id, err)
	}
	run, err := unix.Mmap(fd, 0, vm.mmapSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("vCPU %d: mmap kvm_run, %d bytes: %w", id, vm.mmapSize, err)
	}
	v := &VCPU{vm: vm, id: id, fd: fd, run: run}
	kHz, err := ioctl(fd, getTSCKHz, 0)
	if err != nil {
		v.Close()
		return nil, v.errorf("%w", err)
	}
	v.hostTSCKHz, v.tscKHz = uint32(kHz), uint32(kHz)
	return v, nil
}

// ID is what CreateVCPU was given.
func (v *VCPU) ID() int { return v.id }

// Run enters the guest until something needs user space. The error is a bare
// errno, to be compared with ==: unix.EINTR after a signal or SetImmediateExit,
// unix.EAGAIN from a vCPU that waited for INIT or SIPI (run it again).
//
// An IO or MMIO exit is finished by the next call: answers to reads must be in
// IO().Data or MMIO().Data by then. After EINTR nothing is left to finish.
func (v *VCPU) Run() (ExitReason, error) {
	_, err := gokvm.Ioctl(uintptr(v.fd), runVCPU.nr, 0)
	reason := ExitReason(binary.LittleEndian.Uint32(v.run[offExitReason:]))
	v.unfinished = err == nil && finishedByRun(reason)
	return reason, err
}

// CompleteExit lets KVM finish the last exit, once it has been answered,
// without entering the guest. It must be called before a vCPU that is not
// going to run again here is saved. An instruction that takes several exits
// (a string instruction, an access that crosses a page) may exit again: done
// is false then, and the exit is to be answered and CompleteExit called again.
// SetImmediateExit is left off.
func (v *VCPU) CompleteExit() (reason ExitReason, done bool, err error) {
	v.SetImmediateExit(true)
	reason, err = v.Run()
	v.SetImmediateExit(false)
	switch err {
	case nil:
		return reason, false, nil
	case unix.EINTR, unix.EAGAIN: // EAGAIN: it waits for INIT, nothing is pending
		return ExitIntr, true, nil
	default:
		return reason, false, v.errorf("complete the last exit: %s: %w", runVCPU.name, err)
	}
}

// Close unmaps and closes the vCPU. No other method may run or be called then.
func (v *VCPU) Close() error {
	if err := unix.Munmap(v.run); err != nil {
		return v.errorf("munmap kvm_run: %w", err)
	}
	if err := unix.Close(v.fd); err != nil {
		return v.errorf("close: %w", err)
	}
	return nil
}

// errorf says which vCPU it was.
func (v *VCPU) errorf(format string, args ...any) error {
	return fmt.Errorf("vCPU %d: %w", v.id, fmt.Errorf(format, args...))
}

// call makes r on the vCPU with a pointer to read from or to write to.
func call[T any](v *VCPU, r request, arg *T) error {
	_, err := callCount(v, r, arg)
	return err
}

// callCount is call for a request that returns a count.
func callCount[T any](v *VCPU, r request, arg *T) (int, error) {
	n, err := ioctlPtr(v.fd, r, arg)
	if err != nil {
		return 0, v.errorf("%w", err)
	}
	return n, nil
}
