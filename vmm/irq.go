package vmm

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"microvm/kvm"
)

// An edgeLine is an interrupt line of the edge-triggered kind: an eventfd that
// KVM listens on. It is a devices.Interrupt.
//
// The eventfd is an os.File because a device's timer may fire once more while
// the line is closed, and must not write to whatever has the number by then.
// It is a blocking one, which keeps it out of the runtime's poller; a write
// never blocks, since KVM takes the count back at once.
type edgeLine struct {
	vm    *kvm.VM
	event *os.File
	gsi   uint32
}

func newEdgeLine(vm *kvm.VM, gsi uint32) (*edgeLine, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("eventfd for GSI %d: %w", gsi, err)
	}
	event := os.NewFile(uintptr(fd), fmt.Sprintf("eventfd of GSI %d", gsi))
	if err := vm.AssignIRQFD(fd, gsi); err != nil {
		event.Close()
		return nil, err
	}
	return &edgeLine{vm: vm, event: event, gsi: gsi}, nil
}

// one is what an eventfd's counter grows by; it is shared so that Trigger,
// which vCPU threads call, does not allocate.
var one = [8]byte{1}

// Trigger makes one pulse.
func (l *edgeLine) Trigger() error {
	_, err := l.event.Write(one[:])
	return err
}

func (l *edgeLine) close() error {
	return errors.Join(l.vm.DeassignIRQFD(int(l.event.Fd()), l.gsi), l.event.Close())
}

// A levelLine is an interrupt line of the level-triggered kind. It is a
// devices.LevelInterrupt.
type levelLine struct {
	vm  *kvm.VM
	gsi uint32
}

// Set drives the line.
func (l levelLine) Set(level bool) error { return l.vm.SetIRQLine(l.gsi, level) }
