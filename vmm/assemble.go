package vmm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"microvm/devices"
	"microvm/guest"
	"microvm/kvm"
	"microvm/memslot"
	"microvm/migration"
)

// ramBlock is the name of the RAM block on the wire.
const ramBlock = "ram"

// assemble builds the machine: all of it but what its memory holds. Its vCPU
// threads are there and wait.
func assemble(ctx context.Context, config Config, state State, o Options) (*VM, error) {
	vm := empty(config, state, o)
	for _, step := range []func() error{
		vm.openKVM,
		vm.addMemory,
		vm.addCPUs,
		func() error { return vm.addDevices(o) },
		ctx.Err,
		func() error { return vm.cpus.start(wishPause) },
	} {
		if err := step(); err != nil {
			return nil, errors.Join(err, vm.Close())
		}
	}
	if o.Console != nil {
		var typing context.Context
		typing, vm.stopTyping = context.WithCancel(context.Background())
		go vm.typeInput(typing, o.Console)
	}
	return vm, nil
}

// empty is a VM that has nothing yet, and can be closed.
func empty(config Config, state State, o Options) *VM {
	return &VM{
		config: config,
		log:    o.logger().With("vm", config.Name),
		state:  state,
		cpus:   newCPUSet(nil),
		done:   make(chan struct{}),
		lost:   make(chan struct{}),
	}
}

// openKVM makes the VM and what has to be there before its first vCPU.
func (vm *VM) openKVM() error {
	var err error
	if vm.sys, err = kvm.Open(); err != nil {
		return err
	}
	if vm.kvm, err = vm.sys.CreateVM(); err != nil {
		return err
	}
	if err := vm.kvm.SetTSSAddr(guest.TSSAddr); err != nil {
		return err
	}
	if err := vm.kvm.SetIdentityMapAddr(guest.IdentityMapAddr); err != nil {
		return err
	}
	if err := vm.kvm.CreateIRQChip(); err != nil {
		return err
	}
	if err := vm.kvm.CreatePIT(); err != nil {
		return err
	}
	return vm.kvm.SetGSIRouting(guest.GSIRoutes())
}

// addMemory maps guest RAM: one block, a slot for the part below 4 GiB and,
// if there is more, one for the part above.
func (vm *VM) addMemory() error {
	var err error
	if vm.regions, err = guest.RAMRegions(vm.config.Memory); err != nil {
		return err
	}
	if err := vm.protectManually(); err != nil {
		return err
	}
	slots, err := vm.kvm.Capability(kvm.CapNRMemSlots)
	if err != nil {
		return err
	}
	backing := memslot.Anonymous
	if vm.config.Hugepages {
		backing = memslot.Hugetlb
	}
	if vm.ram, err = memslot.NewBlock(ramBlock, vm.config.Memory, memslot.BlockOptions{Backing: backing}); err != nil {
		return err
	}
	vm.mem = memslot.NewMemory(vm.kvm, slots)
	for i, r := range vm.regions {
		if err := vm.mem.Map(uint32(i), r.GPA, vm.ram, r.Offset, r.Size, 0); err != nil {
			return err
		}
	}
	return nil
}

// addCPUs makes the vCPUs. What their CPUID says comes later: from this host
// in boot, from the other one by its machineConfig.
func (vm *VM) addCPUs() error {
	if err := vm.checkCPUCount(); err != nil {
		return err
	}
	if err := vm.makeCPUs(vm.config.CPUs); err != nil {
		return err
	}
	return vm.deferAcks()
}

func (vm *VM) checkCPUCount() error {
	limit, err := vm.kvm.Capability(kvm.CapMaxVCPUs)
	if err != nil {
		return err
	}
	if vm.config.CPUs > limit {
		return fmt.Errorf("%d vCPUs: KVM on this host takes at most %d in a VM", vm.config.CPUs, limit)
	}
	return nil
}

// makeCPUs makes the first n, and asks how fast their clocks run.
func (vm *VM) makeCPUs(n int) error {
	for i := range n {
		cpu, err := vm.kvm.CreateVCPU(i)
		if err != nil {
			return err
		}
		vm.cpus.cpus = append(vm.cpus.cpus, &vcpu{kvm: cpu, vm: vm, set: vm.cpus, pio: &vm.pio, mmio: &vm.mmio, acks: &vm.acks})
	}
	vm.tscKHz = vm.cpus.cpus[0].kvm.TSCKHz()
	return nil
}

// addDevices puts the devices on the port bus and lists what is to be saved.
// The serial port takes no input until the VM runs.
func (vm *VM) addDevices(o Options) error {
	var out io.Writer = io.Discard
	if o.Console != nil {
		out = o.Console
	}
	line := func(gsi uint32) (*edgeLine, error) {
		l, err := newEdgeLine(vm.kvm, gsi)
		if err == nil {
			vm.lines = append(vm.lines, l)
		}
		return l, err
	}
	serialLine, err := line(guest.COM1IRQ)
	if err != nil {
		return err
	}
	rtcLine, err := line(guest.RTCIRQ)
	if err != nil {
		return err
	}
	if vm.generation, err = line(guest.GenerationIRQ); err != nil {
		return err
	}
	vm.serial = devices.NewSerial(serialLine, out)
	vm.serial.Pause()
	vm.pm = devices.NewPM(levelLine{vm.kvm, guest.SCIIRQ}, func() { vm.end(nil, "powered off") })
	vm.rtc = devices.NewRTC(rtcLine, devices.SystemClock{})
	keyboard := devices.NewI8042(func() { vm.end(ErrReset, ErrReset.Error()) })
	panicked := devices.NewPVPanic(func(e devices.PanicEvent) {
		// A guest that has loaded a crash kernel is to run it.
		if e&devices.PanicPanicked != 0 {
			vm.end(ErrGuestPanic, ErrGuestPanic.Error())
		}
	})
	for _, d := range []struct {
		device migration.Snapshotter
		base   uint64
		size   uint64
		ports  devices.Device
	}{
		{vm.serial, guest.COM1Port, guest.COM1Ports, vm.serial},
		{vm.rtc, guest.RTCPort, guest.RTCPorts, vm.rtc},
		{keyboard, guest.I8042Data, 1, keyboard.Data()},
		{keyboard, guest.I8042Cmd, 1, keyboard.Command()},
		{vm.pm, guest.PM1aEvent, 6, vm.pm},
		{panicked, guest.PVPanicPort, 1, panicked},
	} {
		if err := vm.pio.Register(d.device.ID(), d.base, d.size, d.ports); err != nil {
			return err
		}
	}
	vm.snapshotters = append(vm.snapshotters, kvmState{vm.kvm, o.clockStands})
	for _, c := range vm.cpus.cpus {
		vm.snapshotters = append(vm.snapshotters, cpuState{c.kvm})
	}
	vm.snapshotters = append(vm.snapshotters, vm.serial, vm.rtc, keyboard, vm.pm, panicked)
	for _, add := range []func() error{vm.addDisks, vm.addNets, vm.addRNG, vm.addBalloon, vm.addVsock, func() error { return vm.addHVC(out) }} {
		if err := add(); err != nil {
			return err
		}
	}
	return nil
}

// Close frees the VM, ending it first if it has not ended, once what else uses its
// memory has ended too: a migration or a snapshot. Of one that is lost, of which a vCPU
// waits in the kernel for a page that never comes, nothing can be freed as long as the
// process lives: then Close says so.
func (vm *VM) Close() error {
	vm.Stop()
	select {
	case <-vm.done:
	case <-time.After(drainTime):
		return fmt.Errorf("VM %s: a vCPU still waits for memory that is lost: nothing of the VM can be freed before this process ends", vm.config.Name)
	}
	if !vm.inMemory.end(drainTime) {
		return fmt.Errorf("VM %s: a migration of it still goes on, that uses its memory: nothing of the VM can be freed before that has ended", vm.config.Name)
	}
	var errs []error
	for _, l := range vm.lines {
		errs = append(errs, l.close())
	}
	errs = append(errs, vm.closeVirtio(), vm.cpus.close())
	if vm.kvm != nil {
		errs = append(errs, vm.kvm.Close())
	}
	// The block is not the memory's as long as it is mapped nowhere.
	if vm.mem != nil && len(vm.mem.Blocks()) > 0 {
		errs = append(errs, vm.mem.Close())
	} else if vm.ram != nil {
		errs = append(errs, vm.ram.Close())
	}
	if vm.sys != nil {
		errs = append(errs, vm.sys.Close())
	}
	return errors.Join(errs...)
}
