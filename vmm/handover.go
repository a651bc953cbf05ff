package vmm

import "errors"

// This file is a VM's life as a migration moves it. Source:
//
//	Depart ── Config, Pause, Devices' Save ── HandOver ── Gone
//	   │                                 │       └─ TakeBack ─┐
//	   └── Stay ◀── Resume ◀─────────────┴────────────────────┘
//
// Destination: NewIncoming, Devices' Load, Run, Settle; Stop if it fails before
// Run, Abandon after it.

// Depart begins a migration from here. Until Stay or Gone the VM's user can
// neither pause nor resume it, nor begin another migration.
func (vm *VM) Depart() error { return vm.begin(CommandMigrate, ErrandMigration) }

// MayDepart says what Depart would refuse.
func (vm *VM) MayDepart() error {
	vm.control.Lock()
	defer vm.control.Unlock()
	return vm.free(CommandMigrate)
}

// HandOver gives the VM up. It is called before the message that lets the
// destination run is written, and from then on nothing here can make the
// vCPUs run, short of TakeBack. An error means that the VM ended meanwhile,
// and that the message must not be sent. The disks are the destination's to
// take from then on, and the streams of a vsock device have ended.
func (vm *VM) HandOver() error {
	if err := vm.settleDisks(); err != nil {
		return err
	}
	if err := vm.advance(CommandHandOver); err != nil {
		return err
	}
	vm.leaveVsock()
	vm.leaveNets()
	if err := vm.unlockDisks(); err != nil {
		return errors.Join(err, vm.TakeBack())
	}
	return nil
}

// TakeBack makes this the owner again: the destination has proved that it
// never ran and never will, or a person has said so. The VM is paused then.
func (vm *VM) TakeBack() error {
	if err := vm.allowed(CommandTakeBack); err != nil {
		return err
	}
	if err := vm.lockDisks(); err != nil {
		return err
	}
	if err := vm.advance(CommandTakeBack); err != nil {
		return err
	}
	vm.returnVsock()
	vm.returnNets()
	if vm.inDoubt.Load() {
		if err := vm.changeGeneration(); err != nil {
			vm.log.Error("the guest does not know that it may go on twice", "err", err)
		} else {
			vm.log.Info("the guest has a new generation ID, should it go on twice")
		}
	}
	return nil
}

// Gone ends the VM here: the destination owns it and has all of it. Wait
// returns nil.
func (vm *VM) Gone(destination string) error {
	if err := vm.advance(CommandDepart); err != nil {
		return err
	}
	vm.end(nil, "migrated to "+destination)
	<-vm.done
	return nil
}

// Run starts the vCPUs of an incoming VM, after every device's Load. Memory
// may still be missing. A VM that its user had paused does not run, until it
// has settled and is resumed.
func (vm *VM) Run() error {
	vm.control.Lock()
	defer vm.control.Unlock()
	if err := vm.allowed(CommandArrive); err != nil {
		return err
	}
	if err := vm.lockDisks(); err != nil {
		return err
	}
	err := vm.listenVsock()
	if err == nil {
		err = vm.tellClock()
	}
	if err == nil {
		err = vm.advance(CommandArrive)
	}
	if err != nil {
		vm.leaveVsock()
		return errors.Join(err, vm.unlockDisks())
	}
	vm.returnNets()
	if !vm.heldByUser {
		vm.goOn()
	}
	return nil
}

// Abandon gives up a VM that has run here and is lost, since memory that it
// needs will never come. Its vCPUs are told to stop, and not waited for: one
// that waits for such memory may never come out of KVM_RUN. Nothing of the VM
// may be freed then, and the process is to end.
func (vm *VM) Abandon(why error) {
	vm.end(why, why.Error())
	vm.mu.Lock()
	defer vm.mu.Unlock()
	// However it was to end before.
	vm.outcome, vm.reason = why, why.Error()
	close(vm.lost)
}

// Lost is closed when the VM is lost: see Abandon.
func (vm *VM) Lost() <-chan struct{} { return vm.lost }

// Settle ends the postcopy state of a VM that has arrived: no page is missing
// any more, and the source is not needed.
func (vm *VM) Settle() error {
	vm.control.Lock()
	defer vm.control.Unlock()
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if err := vm.allowedLocked(CommandSettle); err != nil {
		return err
	}
	vm.state = rules[CommandSettle].to
	if vm.heldByUser {
		vm.state = StatePaused
	}
	return nil
}

// VCPUThreads gives the kernel thread id of each vCPU, by index.
func (vm *VM) VCPUThreads() []int {
	tids := make([]int, len(vm.cpus.cpus))
	for i, c := range vm.cpus.cpus {
		tids[i] = int(c.tid.Load())
	}
	return tids
}
