package vmm

import (
	"fmt"
	"strings"
	"testing"

	"microvm/devices/virtio/blk"
)

// TestEveryPlaceForAVirtioDeviceCanBeUsed: all that a VM can have of devices at
// once find a place, of which KVM and the guest's tables take the interrupt.
func TestEveryPlaceForAVirtioDeviceCanBeUsed(t *testing.T) {
	needKVM(t)
	config := withDisks(t)
	config.Disks = config.Disks[1:]
	vm, err := assemble(t.Context(), config, StateCreated, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	add := func(i int) error {
		image, err := blk.OpenImage(config.Disks[0].Path, true)
		if err != nil {
			t.Fatal(err)
		}
		disk, err := blk.NewDisk(image, blk.Options{Queues: 1, Log: vm.log})
		if err != nil {
			t.Fatal(err)
		}
		_, err = vm.addVirtio(fmt.Sprintf("more%d", i), disk)
		return err
	}
	for i := len(vm.virtio); i < maxVirtio; i++ {
		if err := add(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := add(maxVirtio); err == nil || !strings.Contains(err.Error(), "no place for more") {
		t.Errorf("one more: %v", err)
	}
	files, err := openBoot(config)
	if err != nil {
		t.Fatal(err)
	}
	defer files.close()
	if err := vm.boot(files); err != nil {
		t.Error(err)
	}
}
