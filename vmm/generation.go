package vmm

import (
	"crypto/rand"
	"fmt"

	"microvm/guest"
)

// newGeneration is a VM generation ID that no other VM has.
func newGeneration() (id guest.GenerationID) {
	rand.Read(id[:]) // never fails
	return id
}

// changeGeneration tells the guest that it goes on from a time from which it
// may have gone on before, so that its random numbers have to be made anew.
func (vm *VM) changeGeneration() error {
	id := newGeneration()
	err := vm.mem.WriteAt(id[:], guest.GenerationAddr)
	if err == nil {
		err = vm.generation.Trigger()
	}
	if err != nil {
		return fmt.Errorf("VM %s: change its generation ID: %w", vm.config.Name, err)
	}
	return nil
}
