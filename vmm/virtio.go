package vmm

import (
	"errors"
	"fmt"

	"microvm/devices/virtio"
	"microvm/guest"
	"microvm/kvm"
)

// virtioGSIs are the I/O APIC's pins of the virtio-mmio devices, by place: those
// that are no ISA interrupts first, then those of ISA devices that this machine
// does not have, and no driver looks for.
var virtioGSIs = [...]uint32{16, 17, 18, 19, 20, 21, 22, 23, 6, 7, 10, 11, 12, 14, 15, 3}

// maxVirtio is how many virtio-mmio devices a VM can have.
const maxVirtio = len(virtioGSIs)

// A virtioDevice is a device with its place in the machine.
type virtioDevice struct {
	mmio  *virtio.MMIO
	place guest.MMIODevice
}

// virtioDevices is how many virtio devices the VM is to have.
func (c Config) virtioDevices() int {
	n := len(c.Disks) + len(c.Nets)
	for _, has := range []bool{c.RNG, c.Balloon != nil, c.Vsock != nil, c.VirtioConsole} {
		if has {
			n++
		}
	}
	return n
}

// addVirtio gives a backend its device, registers and interrupt line, in the
// next free place. It is held until goOn. The backend is the device's, or closed
// if there is none.
func (vm *VM) addVirtio(id string, backend virtio.Backend) (*virtioDevice, error) {
	i := len(vm.virtio)
	if i == maxVirtio {
		return nil, errors.Join(fmt.Errorf("%s: %d virtio devices: there is no place for more", id, i), backend.Close())
	}
	place := guest.MMIODevice{
		Addr: guest.MMIOBase + uint64(i)*guest.MMIOSize, Size: guest.MMIOSize, GSI: virtioGSIs[i],
	}
	line, err := newEdgeLine(vm.kvm, place.GSI)
	if err != nil {
		return nil, errors.Join(err, backend.Close())
	}
	vm.lines = append(vm.lines, line)
	device, err := virtio.NewDevice(id, backend, vm.mem, vm.log)
	if err != nil {
		return nil, err
	}
	d := &virtioDevice{mmio: virtio.NewMMIO(device, line), place: place}
	if err := vm.connect(d); err != nil {
		return nil, errors.Join(err, device.Close())
	}
	vm.virtio = append(vm.virtio, d)
	vm.snapshotters = append(vm.snapshotters, d.mmio)
	return d, nil
}

// connect puts the registers on the bus, and has KVM signal what the driver
// writes to the notification register, and keep its acknowledgements.
func (vm *VM) connect(d *virtioDevice) error {
	for i := range d.mmio.Device().Queues() {
		queue := uint64(i)
		err := vm.kvm.AssignIOEventFD(kvm.IOEventFD{
			Addr: d.place.Addr + virtio.MMIONotify, Size: 4, FD: d.mmio.Device().NotifyFD(i), Match: &queue,
		})
		if err != nil {
			return err
		}
	}
	if err := vm.deferAck(d); err != nil {
		return err
	}
	return vm.mmio.Register(d.mmio.ID(), d.place.Addr, d.place.Size, d.mmio)
}

// closeVirtio frees the devices and what is behind them. Preconditions: no vCPU
// runs.
func (vm *VM) closeVirtio() error {
	var errs []error
	for _, d := range vm.virtio {
		d.mmio.Device().Hold()
		errs = append(errs, d.mmio.Device().Close())
	}
	vm.acks.close()
	return errors.Join(errs...)
}

// DeviceInfo describes a virtio device to the VM's users.
type DeviceInfo struct {
	ID     string              `json:"id"`
	Counts virtio.Counts       `json:"counts"`
	Queues []virtio.QueueStats `json:"queues"`
}

// VirtioDevices describes the virtio devices, in the order in which the guest finds
// them.
func (vm *VM) VirtioDevices() []DeviceInfo {
	infos := make([]DeviceInfo, 0, len(vm.virtio))
	for _, d := range vm.virtio {
		info := DeviceInfo{ID: d.mmio.ID(), Counts: d.mmio.Device().Counts()}
		for _, q := range d.mmio.Device().Queues() {
			info.Queues = append(info.Queues, q.Stats())
		}
		infos = append(infos, info)
	}
	return infos
}

// virtioPlaces is what the guest's ACPI tables announce.
func (vm *VM) virtioPlaces() []guest.MMIODevice {
	var places []guest.MMIODevice
	for _, d := range vm.virtio {
		places = append(places, d.place)
	}
	return places
}

// holdVirtio brings the devices to rest: nothing is under way any more when it
// returns, and nothing changes guest memory. No vCPU runs.
func (vm *VM) holdVirtio() {
	for _, d := range vm.virtio {
		d.mmio.Device().Hold()
	}
}

// releaseVirtio undoes it.
func (vm *VM) releaseVirtio() {
	for _, d := range vm.virtio {
		d.mmio.Device().Release()
	}
	vm.askNets()
}
