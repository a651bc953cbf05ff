package vmm

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestVMWithDevicesThatNeedNothingOfItsHostMoves without another word to the
// destination, and has them there.
func TestVMWithDevicesThatNeedNothingOfItsHostMoves(t *testing.T) {
	config := tinyConfig("beat=50")
	config.RNG, config.VirtioConsole, config.Balloon = true, true, &BalloonConfig{Size: 1 << 20, FreePageReporting: true}
	vm, out := boot(t, config)
	out.wait(t, 1, "beat ")
	if err := errors.Join(vm.SetBalloon(3<<20), vm.Depart(), vm.Pause(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := vm.SetBalloon(4 << 20); err == nil || !strings.Contains(err.Error(), "a migration of it is under way") {
		t.Errorf("the balloon's size changes where it may have been sent already: %v", err)
	}
	moved := moveInPlace(t, vm, Options{})
	var ids []string
	for _, d := range moved.VirtioDevices() {
		ids = append(ids, d.ID)
	}
	if got := strings.Join(ids, " "); got != "rng0 balloon0 console0" {
		t.Errorf("it has %s", got)
	}
	if s, err := moved.Balloon(t.Context()); err != nil || s.Target != 3<<20 {
		t.Errorf("its balloon is to hold %d bytes: %v", s.Target, err)
	}
	if c := moved.VirtioDevices()[0].Counts; len(c.Requests) != 1 || c.Requests[0].Sort != "read" {
		t.Errorf("it counts %+v", c)
	}
}

func TestTooManyDevicesAreRefused(t *testing.T) {
	config := tinyConfig("")
	for range maxVirtio {
		config.Disks = append(config.Disks, DiskConfig{Path: "/d"})
	}
	if err := config.Validate(); err != nil {
		t.Error(err)
	}
	config.RNG = true
	if err := config.Validate(); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%d virtio devices: %d at most", maxVirtio+1, maxVirtio)) {
		t.Errorf("%v", err)
	}
}
