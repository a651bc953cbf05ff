package vmm

import (
	"context"
	"errors"
	"fmt"
)

// allowed checks a command against the state, without changing it.
func (vm *VM) allowed(c Command) error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return vm.allowedLocked(c)
}

func (vm *VM) allowedLocked(c Command) error {
	state := vm.state
	if vm.ending && state != StateMigrated {
		state = StateStopped // as good as
	}
	restoring := vm.ofFile && state == StatePostcopy && rules[c].restoring
	if !restoring && !rules[c].from.has(state) {
		return &StateError{VM: vm.config.Name, Command: c, State: state}
	}
	return nil
}

// advance checks a command and makes the state what it leads to.
func (vm *VM) advance(c Command) error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if err := vm.allowedLocked(c); err != nil {
		return err
	}
	if !rules[c].stays {
		vm.state = rules[c].to
	}
	return nil
}

// Start runs a VM that New made.
func (vm *VM) Start() error {
	vm.control.Lock()
	defer vm.control.Unlock()
	if err := vm.advance(CommandStart); err != nil {
		return err
	}
	vm.goOn()
	return nil
}

// Pause stops the vCPUs and the devices. When it returns nil, every vCPU is
// out of KVM_RUN with its last instruction completed, and neither memory nor
// device state changes until Resume. If ctx ends first, the VM runs on.
// Pausing a paused VM does nothing.
func (vm *VM) Pause(ctx context.Context) error {
	vm.control.Lock()
	defer vm.control.Unlock()
	return vm.pause(ctx)
}

// Resume undoes Pause. If the VM's user had paused it before it began to
// depart, it stays paused.
func (vm *VM) Resume() error {
	vm.control.Lock()
	defer vm.control.Unlock()
	if vm.errand != ErrandNone && vm.pausedBefore {
		return vm.allowed(CommandResume)
	}
	return vm.resume()
}

// PauseByUser is Pause, refused while the VM is migrating or being saved.
func (vm *VM) PauseByUser(ctx context.Context) error {
	vm.control.Lock()
	defer vm.control.Unlock()
	if err := vm.notOnErrand(CommandPause); err != nil {
		return err
	}
	return vm.pause(ctx)
}

// ResumeByUser is Resume, refused while the VM is migrating or being saved: a guest
// that runs here while its state is on the way would be lost or run twice.
func (vm *VM) ResumeByUser() error {
	vm.control.Lock()
	defer vm.control.Unlock()
	if err := vm.notOnErrand(CommandResume); err != nil {
		return err
	}
	return vm.resume()
}

// pause does it. control is held.
func (vm *VM) pause(ctx context.Context) error {
	if err := vm.allowed(CommandPause); err != nil {
		return err
	}
	if vm.State() == StatePaused {
		return nil
	}
	vm.serial.Pause()
	if err := vm.cpus.pause(ctx); err != nil {
		vm.serial.Resume()
		return fmt.Errorf("pause VM %s: %w", vm.config.Name, err)
	}
	vm.holdVirtio()
	return vm.advance(CommandPause)
}

// resume does it. control is held.
func (vm *VM) resume() error {
	if err := vm.allowed(CommandResume); err != nil {
		return err
	}
	if vm.State() == StateRunning {
		return nil
	}
	if err := vm.tellClock(); err != nil {
		return err
	}
	if err := vm.advance(CommandResume); err != nil {
		return err
	}
	vm.goOn()
	return nil
}

// goOn lets the vCPUs, the devices and whoever types run.
func (vm *VM) goOn() {
	vm.releaseVirtio()
	vm.tellSize()
	vm.serial.Resume()
	vm.cpus.resume()
}

// tellClock marks, in each vCPU's kvmclock page, that the guest was stopped
// by its host, so that its watchdogs do not take the gap for a lockup.
func (vm *VM) tellClock() error {
	for _, c := range vm.cpus.cpus {
		if err := c.kvm.KVMClockCtrl(); err != nil {
			return fmt.Errorf("VM %s: %w", vm.config.Name, err)
		}
	}
	return nil
}

// PressPowerButton asks the guest to shut down. Whether it does is its own
// affair.
func (vm *VM) PressPowerButton() error {
	vm.control.Lock()
	defer vm.control.Unlock()
	if err := vm.allowed(CommandPowerButton); err != nil {
		return err
	}
	return vm.pm.PressPowerButton()
}

// PowerOff ends the VM at once. It is refused while part of it lives
// elsewhere, since that would end the VM there too; of one that is restored the rest
// is in a file, which stays. It returns when no vCPU runs any more.
func (vm *VM) PowerOff() error {
	if err := vm.allowed(CommandStop); err != nil {
		return err
	}
	vm.end(nil, "stopped")
	<-vm.done
	return nil
}

// Stop ends the VM whatever state it is in, and returns when every vCPU has
// left KVM_RUN for good, or the VM is lost. A VM that has ended is left as it
// is.
func (vm *VM) Stop() {
	vm.end(nil, "killed")
	select {
	case <-vm.done:
	case <-vm.lost:
	}
}

// end makes the VM end: the first call decides how. It does not wait, so that
// a vCPU thread or a device may call it.
func (vm *VM) end(outcome error, reason string) {
	vm.mu.Lock()
	if vm.ending {
		vm.mu.Unlock()
		return
	}
	vm.ending, vm.outcome, vm.reason = true, outcome, reason
	vm.mu.Unlock()
	vm.cpus.stop()
	go vm.finish()
}

// errEnded is what waits for a page of a VM that has ended.
var errEnded = errors.New("the VM has ended")

// finish waits for the vCPU threads, lets the last of the console's output
// out, and declares the VM over.
func (vm *VM) finish() {
	if vm.ram != nil {
		// A device may wait for a page that is still at another host, and a
		// vCPU that resets the device for the device.
		vm.ram.Fail(errEnded)
	}
	vm.cpus.wait()
	vm.holdVirtio()
	if err := vm.unlockDisks(); err != nil {
		vm.log.Error("the VM has ended, and its disks may lack what it wrote last", "err", err)
	}
	vm.leaveVsock()
	if vm.stopTyping != nil {
		vm.stopTyping()
	}
	if vm.serial != nil {
		vm.flushConsoles()
		vm.rtc.Close()
	}
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if vm.state != StateMigrated {
		vm.state = StateStopped
	}
	close(vm.done)
}

// flushConsoles lets the last of the guest's output out, unless whoever takes
// it does not take it.
func (vm *VM) flushConsoles() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if err := vm.flushHVC(ctx); err != nil {
		vm.log.Warn("console output was lost", "err", err)
	}
	if err := errors.Join(vm.serial.Flush(ctx), vm.serial.Close()); err != nil {
		vm.log.Warn("console output was lost", "bytes", vm.serial.Dropped(), "err", err)
	}
}

// typeInput gives the guest what is typed, as fast as it takes it.
func (vm *VM) typeInput(ctx context.Context, c *Console) {
	for {
		select {
		case p := <-c.input:
			if n, err := vm.typeAll(ctx, p); err != nil {
				vm.log.Warn("typed, but not taken by the guest", "bytes", len(p)-n)
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
