package vmm

// An Errand is something that is done to a VM as a whole and takes a while. Until it
// has ended no other begins, and its user does nothing to the VM that would disturb
// it.
type Errand uint8

// The errands.
const (
	ErrandNone      Errand = iota
	ErrandMigration        // from here: see Depart
	ErrandSnapshot         // see Save
)

// underWay is how errors say what a command has to wait for.
var underWay = [...]string{
	ErrandMigration: "a migration of it is under way (microvm migrate-cancel %s)",
	ErrandSnapshot:  "a snapshot of %s is being made",
}

// begin begins an errand, if the VM is free for the command that asks for it.
func (vm *VM) begin(c Command, e Errand) error {
	vm.control.Lock()
	defer vm.control.Unlock()
	if err := vm.free(c); err != nil {
		return err
	}
	vm.errand, vm.pausedBefore = e, vm.State() == StatePaused
	return nil
}

// Stay ends an errand that left the VM here. The VM is as Resume, or the lack of it,
// left it.
func (vm *VM) Stay() {
	vm.control.Lock()
	defer vm.control.Unlock()
	vm.errand = ErrandNone
}

// free says what keeps the VM from a command: its state, or an errand. control is
// held.
func (vm *VM) free(c Command) error {
	if err := vm.notOnErrand(c); err != nil {
		return err
	}
	return vm.allowed(c)
}

// notOnErrand is free whatever the VM's state is.
func (vm *VM) notOnErrand(c Command) error {
	if vm.errand == ErrandNone {
		return nil
	}
	return &StateError{VM: vm.config.Name, Command: c, State: vm.State(), Errand: vm.errand}
}

// pausedByUser says whether the VM is paused for another reason than an errand.
func (vm *VM) pausedByUser() bool {
	vm.control.Lock()
	defer vm.control.Unlock()
	if vm.errand != ErrandNone {
		return vm.pausedBefore
	}
	return vm.State() == StatePaused
}

// Migrating says whether a migration from here is under way.
func (vm *VM) Migrating() bool {
	vm.control.Lock()
	defer vm.control.Unlock()
	return vm.errand == ErrandMigration
}
