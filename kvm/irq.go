package kvm

import (
	"encoding/binary"
	"fmt"
)

// Interrupt controllers of a GSIRoute: KVM_IRQCHIP_*.
const (
	ChipPICMaster = 0
	ChipPICSlave  = 1
	ChipIOAPIC    = 2
)

// CreateIRQChip puts two PICs, an I/O APIC and, for each vCPU created from then
// on, a local APIC into the kernel, with the usual routing: GSI 0 to 15 to the
// PICs and the I/O APIC, 16 to 23 to the I/O APIC. HLT then waits in the kernel.
func (vm *VM) CreateIRQChip() error {
	_, err := ioctl(vm.fd, createIRQChip, 0)
	return err
}

// CreatePIT puts an i8254 into the kernel, with port 0x61, by which guests gate
// its third channel to calibrate the TSC. CreateIRQChip comes first.
func (vm *VM) CreatePIT() error {
	const speakerDummy = 1 // KVM_PIT_SPEAKER_DUMMY
	_, err := ioctlPtr(vm.fd, createPIT2, &pitConfig{flags: speakerDummy})
	return err
}

// SetIRQLine drives an interrupt line of the in-kernel controllers.
func (vm *VM) SetIRQLine(gsi uint32, level bool) error {
	l := irqLevel{gsi: gsi}
	if level {
		l.level = 1
	}
	if _, err := ioctlPtr(vm.fd, irqLine, &l); err != nil {
		return fmt.Errorf("GSI %d level %d: %w", gsi, l.level, err)
	}
	return nil
}

// AssignIRQFD makes each write to the eventfd fd raise and lower the GSI: an
// edge, without a system call to KVM.
func (vm *VM) AssignIRQFD(fd int, gsi uint32) error {
	return vm.irqFD(fd, gsi, 0)
}

// DeassignIRQFD undoes AssignIRQFD with the same arguments. When it returns, no
// write to fd injects any more.
func (vm *VM) DeassignIRQFD(fd int, gsi uint32) error {
	const deassign = 1 << 0 // KVM_IRQFD_FLAG_DEASSIGN
	return vm.irqFD(fd, gsi, deassign)
}

func (vm *VM) irqFD(fd int, gsi, flags uint32) error {
	if _, err := ioctlPtr(vm.fd, assignIRQFD, &irqfd{fd: uint32(fd), gsi: gsi, flags: flags}); err != nil {
		return fmt.Errorf("eventfd %d for GSI %d: %w", fd, gsi, err)
	}
	return nil
}

// MSI is a message-signalled interrupt: what a device writes, and where
// (Intel SDM volume 3, "Message Signalled Interrupts").
type MSI struct {
	Address uint64
	Data    uint32
}

// SignalMSI injects a message-signalled interrupt. It reports whether a local
// APIC took it; one that is off, or has the vector pending already, does not.
func (vm *VM) SignalMSI(m MSI) (delivered bool, err error) {
	a := msiArgs{addressLo: uint32(m.Address), addressHi: uint32(m.Address >> 32), data: m.Data}
	n, err := ioctlPtr(vm.fd, signalMSI, &a)
	if err != nil {
		return false, fmt.Errorf("MSI address %#x data %#x: %w", m.Address, m.Data, err)
	}
	return n > 0, nil
}

// GSIRoute says where a GSI goes: to a pin of an interrupt controller, or, if
// MSI is not nil, out as a message.
type GSIRoute struct {
	GSI  uint32
	Chip uint32 // ChipPICMaster, ChipPICSlave or ChipIOAPIC
	Pin  uint32
	MSI  *MSI
}

// struct kvm_irq_routing_entry is 16 bytes and a union of 32.
const routeSize = 48

// SetGSIRouting replaces the whole routing table, the default one included. A
// GSI may have one route to each PIC and one to the I/O APIC, or one MSI.
func (vm *VM) SetGSIRouting(routes []GSIRoute) error {
	if _, err := ioctlPtr(vm.fd, setGSIRouting, &encodeRoutes(routes)[0]); err != nil {
		return fmt.Errorf("%d GSI routes: %w", len(routes), err)
	}
	return nil
}

// encodeRoutes writes struct kvm_irq_routing.
func encodeRoutes(routes []GSIRoute) []byte {
	const (
		typeIRQChip = 1 // KVM_IRQ_ROUTING_IRQCHIP
		typeMSI     = 2 // KVM_IRQ_ROUTING_MSI
	)
	le := binary.LittleEndian
	b := make([]byte, sizeofListHeader+len(routes)*routeSize)
	le.PutUint32(b, uint32(len(routes)))
	for i, r := range routes {
		e := b[sizeofListHeader+i*routeSize:][:routeSize]
		le.PutUint32(e, r.GSI)
		if r.MSI == nil {
			le.PutUint32(e[4:], typeIRQChip)
			le.PutUint32(e[16:], r.Chip)
			le.PutUint32(e[20:], r.Pin)
		} else {
			le.PutUint32(e[4:], typeMSI)
			le.PutUint64(e[16:], r.MSI.Address)
			le.PutUint32(e[24:], r.MSI.Data)
		}
	}
	return b
}
