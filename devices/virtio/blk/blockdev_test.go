package blk

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// newLoop makes a file a block device of the host, with blocks of so many
// bytes.
func newLoop(t *testing.T, path, blockSize string) string {
	t.Helper()
	if f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0); err != nil {
		t.Skipf("%v; run this test as root on a kernel with loop devices (modprobe loop)", err)
	} else {
		f.Close()
	}
	out, err := exec.Command("losetup", "--find", "--show", "--sector-size", blockSize, path).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v: %s", err, out)
		}
	})
	return device
}

// TestBlockDeviceIsADisk as a file is, whatever the size of its own blocks,
// which a guest is not told.
func TestBlockDeviceIsADisk(t *testing.T) {
	for _, blockSize := range []string{"512", "4096"} {
		t.Run(blockSize, func(t *testing.T) {
			path, want := newImage(t, t.TempDir(), 256*sectorSize*16)
			device := newLoop(t, path, blockSize)
			r := newRig(t, device, false, Options{Queues: 3}, 0)
			if !r.disk.Image().Direct() {
				t.Error("O_DIRECT is not possible")
			}
			if err := r.disk.Image().Lock(); err != nil {
				t.Fatal(err)
			}
			if open(t, device, false).Lock() == nil {
				t.Error("two own it")
			}
			churn(t, r, want, 60)
			if r.disk.engine != nil && r.disk.Counts().Counters["io_uring"] == 0 {
				t.Error("the io_uring is not used")
			}
			// Neither range has to begin or end where a block of the device does.
			if got := r.ask(typeDiscard, 0, extents([3]uint64{9, 30, 0}, [3]uint64{1001, 3, 0})); got != statusOK {
				t.Errorf("discard: status %d", got)
			}
			for i := range want {
				if s := i / sectorSize; s >= 9 && s < 39 || s >= 1001 && s < 1004 {
					want[i] = 0 // or what it was
				}
			}
			data, status := r.in(0, 1100*sectorSize)
			for i := range data {
				if s := i / sectorSize; s >= 9 && s < 39 || s >= 1001 && s < 1004 {
					data[i] = 0
				}
			}
			if status != statusOK || !bytes.Equal(data, want[:len(data)]) {
				t.Errorf("it reads with status %d, and not what was written", status)
			}
			grow(t, r, path, device)
		})
	}
}

// grow has the device grow with the file behind it.
func grow(t *testing.T, r *rig, path, device string) {
	before := r.disk.Bytes()
	if err := os.Truncate(path, int64(2*before)); err != nil {
		t.Fatal(err)
	}
	if grown, err := r.disk.Grow(); grown || err != nil {
		t.Errorf("before the device has: %t, %v", grown, err)
	}
	if out, err := exec.Command("losetup", "--set-capacity", device).CombinedOutput(); err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	if grown, err := r.disk.Grow(); !grown || err != nil || r.disk.Bytes() != 2*before {
		t.Errorf("it has grown: %t, %v, to %d bytes", grown, err, r.disk.Bytes())
	}
	if sectors := binary.LittleEndian.Uint64(r.Config(0, 8)); sectors != 2*before/sectorSize {
		t.Errorf("the guest is told of %d sectors", sectors)
	}
	if got := r.ask(typeOut, 2*before/sectorSize-1, bytes.Repeat([]byte{7}, sectorSize)); got != statusOK {
		t.Errorf("write at its end: status %d", got)
	}
}
