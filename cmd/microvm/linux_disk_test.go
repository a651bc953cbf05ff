//go:build linuxguest

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"microvm/devices/virtio/blk"
	"microvm/vmm"
)

// newDisk makes a disk with an empty ext4 file system.
func newDisk(t *testing.T) string {
	t.Helper()
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip("mkfs.ext4 is not here: apt-get install e2fsprogs")
	}
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(64 << 20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, "-q", path).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// startWithDisk boots a Linux guest with disks.
func (h *host) startWithDisk(name, job string, disk ...string) *process {
	h.t.Helper()
	kernel, initrd := linuxFiles(h.t)
	args := []string{"run", "--name", name, "-k", kernel, "-i", initrd, "-p", "console=ttyS0 panic=-1 " + job, "-m", "256M", "-c", "2"}
	for _, d := range disk {
		args = append(args, "--disk", d)
	}
	p := h.start(args...)
	p.patience = linuxPatience
	return p
}

// refuse checks that no other VM gets a disk that a VM has.
func (h *host) refuse(t *testing.T, disk string) {
	t.Helper()
	second := h.start("run", "--name", "thief", "--disk", disk)
	second.wait(1)
	if !strings.Contains(second.stderr.String(), "another process uses it") {
		t.Errorf("a second VM with the disk: %s", second.stderr)
	}
}

// TestWhatLinuxHasSyncedOutlivesTheVMM, which is killed right after the guest's
// fsync has returned. Before that the disk has grown without a restart, and one
// that is read-only was not written to.
func TestWhatLinuxHasSyncedOutlivesTheVMM(t *testing.T) {
	disk, other := newDisk(t), newDisk(t)
	h := newHost(t)
	first := h.startWithDisk("a", "mv.job=shell", disk, other+",ro")
	first.awaitLine("GUEST READY cpus 2 ")
	first.enter("echo sizes $(cat /sys/block/vd[ab]/size) ro $(cat /sys/block/vd[ab]/ro)")
	first.awaitLine("sizes 131072 131072 ro 0 1")
	if err := os.Truncate(disk, 80<<20); err != nil {
		t.Fatal(err)
	}
	h.start("grow", "a").wait(0)
	first.enter("while [ $(cat /sys/block/vda/size) != 163840 ]; do sleep 0.1; done; echo grown")
	first.awaitLine("grown")
	first.enter("dd if=/dev/vda of=/dev/null bs=1M skip=64 && echo read; echo x > /dev/vdb || echo not written")
	first.awaitLine("read")
	first.awaitLine("not written")
	first.enter("mkdir /disk && mount -t ext4 /dev/vda /disk && dd if=/dev/urandom of=/disk/precious bs=64k count=64 conv=fsync && echo sum $(md5sum < /disk/precious)")
	sum := first.awaitLine("sum ")
	first.signal(9)
	<-first.ended

	second := h.startWithDisk("a", "mv.job=shell", disk+",serial=the-disk")
	second.awaitLine("GUEST READY cpus 2 ")
	second.enter("echo serial is $(cat /sys/block/vda/serial); mkdir /disk && mount -t ext4 /dev/vda /disk && echo sum $(md5sum < /disk/precious)")
	if got := second.awaitLine("sum "); got != sum {
		t.Errorf("what was synced is lost: %q, want %q", got, sum)
	}
	second.awaitLine("serial is the-disk")
	second.enter("poweroff -f")
	second.wait(0)
	image, err := blk.OpenImage(disk, false)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	if err := image.Lock(); err != nil {
		t.Errorf("nobody runs, and %v", err)
	}
}

// counts asks a VM what its device has counted.
func (h *host) counts(vm, device string) vmm.DeviceInfo {
	h.t.Helper()
	c, err := vmm.Dial(vm)
	if err != nil {
		h.t.Fatal(err)
	}
	s, err := c.Stats(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, d := range s.Devices {
		if d.ID == device {
			return d
		}
	}
	h.t.Fatalf("%s has no %s: %+v", vm, device, s)
	return vmm.DeviceInfo{}
}
