package vmm

import (
	"errors"
	"testing"

	"microvm/guest"
)

func generationOf(t *testing.T, vm *VM) (id guest.GenerationID) {
	t.Helper()
	if err := vm.mem.ReadAt(id[:], guest.GenerationAddr); err != nil {
		t.Fatal(err)
	}
	return id
}

// TestGenerationChangesOnlyWhereAGuestMayGoOnTwice: not when it moves, nor when
// it is known that it has not run elsewhere; and then the guest is told.
func TestGenerationChangesOnlyWhereAGuestMayGoOnTwice(t *testing.T) {
	vm, out := boot(t, tinyConfig("beat=50"))
	other, _ := boot(t, tinyConfig("beat=50"))
	first := generationOf(t, vm)
	if first == (guest.GenerationID{}) || first == generationOf(t, other) {
		t.Errorf("generation %x, of another VM %x", first, generationOf(t, other))
	}
	out.wait(t, 1, "beat ")
	if err := errors.Join(vm.Depart(), vm.Pause(t.Context())); err != nil {
		t.Fatal(err)
	}
	if got := generationOf(t, moveInPlace(t, vm, Options{})); got != first {
		t.Errorf("where it moves it is %x, was %x", got, first)
	}
	if err := errors.Join(vm.HandOver(), vm.TakeBack()); err != nil {
		t.Fatal(err)
	}
	if got := generationOf(t, vm); got != first || told(t, vm) {
		t.Errorf("taken back for sure it is %x, was %x; told: %t", got, first, told(t, vm))
	}
	vm.inDoubt.Store(true)
	if err := errors.Join(vm.HandOver(), vm.TakeBack()); err != nil {
		t.Fatal(err)
	}
	if got := generationOf(t, vm); got == first {
		t.Error("taken back upon a person's word it is the same")
	}
	await(t, "the guest's notification", func() bool { return told(t, vm) })
}

// told says whether the interrupt controller has had the pulse. The tiny kernel
// takes none from there.
func told(t *testing.T, vm *VM) bool {
	t.Helper()
	s, err := vm.kvm.SaveState()
	if err != nil {
		t.Fatal(err)
	}
	const irr = 1 // struct kvm_pic_state: last_irr, irr, ...
	return s.PICMaster.Chip[irr]&(1<<guest.GenerationIRQ) != 0
}
