package vmm

import (
	"sync"

	"microvm/devices/virtio"
	"microvm/kvm"
)

// acks are the drivers' acknowledgements of interrupts, which KVM keeps in a ring
// in place of an exit for each: half of the exits that an interrupt costs. What
// is in the ring has been written as far as the guest knows. So it is taken in
// before any other access to a register is done, whichever vCPU's it is, and by
// the devices before they change, or save, what it is about.
type acks struct {
	mu sync.Mutex
	// ring is nil if there is none, or no more; guarded by mu.
	ring *kvm.MMIORing
	take func(addr uint64, data []byte) // made once
}

// deferAcks has the acknowledgements of the virtio devices to come kept, if KVM
// can. Preconditions: there is a vCPU.
func (vm *VM) deferAcks() (err error) {
	vm.acks.take = func(addr uint64, data []byte) { vm.mmio.Write(addr, data) }
	vm.acks.ring, err = vm.cpus.cpus[0].kvm.MMIORing()
	return err
}

// deferAck has those of one device kept.
func (vm *VM) deferAck(d *virtioDevice) error {
	if vm.acks.ring == nil {
		return nil
	}
	d.mmio.DeferACK(vm.acks.settle)
	return vm.kvm.CoalesceMMIO(d.place.Addr+virtio.MMIOACK, 4)
}

// settle takes in what was kept. It is short, and waits for nothing but another
// one: vCPU threads call it at each MMIO exit.
func (a *acks) settle() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ring != nil {
		a.ring.Drain(a.take)
	}
}

// close has the ring not be touched any more.
func (a *acks) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ring = nil
}
