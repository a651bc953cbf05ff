package vmm

import "microvm/devices/virtio/rng"

// addRNG makes the entropy device, if there is to be one.
func (vm *VM) addRNG() error {
	if !vm.config.RNG {
		return nil
	}
	_, err := vm.addVirtio("rng0", rng.New())
	return err
}
