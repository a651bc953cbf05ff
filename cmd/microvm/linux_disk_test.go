//go:build linuxguest

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"microvm/devices/virtio/blk"
	"microvm/vmm"
	"microvm/vmm/client"
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
	args := []string{"run", "--name", name, "-k", kernel, "-i", initrd, "-p", linuxCmdline + " " + job, "-m", "256M", "-c", "2"}
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

// filesRounds has a shell write a file on /disk with fsync, and read it back from
// there, again and again.
const filesRounds = "cd /disk; for i in 1 2 3 4 5 6; do dd if=/dev/urandom of=f bs=256k count=16 conv=fsync 2> /dev/null || echo disk bad write; " +
	"want=$(md5sum < f); echo 3 > /proc/sys/vm/drop_caches; [ \"$(md5sum < f)\" = \"$want\" ] && echo disk ok $i || echo disk bad $i; done; echo disk end"

var roundLine = regexp.MustCompile(`(?m)^disk ok \d\r?$`)

// TestWhatLinuxHasSyncedOutlivesTheVMM, which is killed right after the guest's
// fsync has returned. Before that the disk has grown without a restart, one that
// is read-only was not written to, and the guest has moved by postcopy while it
// wrote and read. The guest that finds what was synced goes on from a snapshot.
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
	first.enter("mkdir /disk && mount -t ext4 /dev/vda /disk && " + filesRounds)
	first.awaitLine("disk ok 1")
	h.refuse(t, disk)
	moved, addr := h.receive("--name", "b", "--disk", disk, "--disk", other)
	moved.patience = linuxPatience
	migrate := h.start("migrate", "a", addr, "--postcopy")
	migrate.patience = linuxPatience
	migrate.wait(0)
	first.wait(0)
	h.refuse(t, disk)
	moved.awaitLine("disk end")
	text := screens(first, moved)
	if n := len(roundLine.FindAllString(text, -1)); n != 6 || strings.Contains(text, "\ndisk bad") {
		t.Errorf("%d rounds of 6:\n%s", n, text)
	}
	there := h.counts("b", "blk0")
	for _, sort := range []string{"read", "write", "flush"} {
		if r := there.Counts.Of(sort); r.Requests == 0 || r.Errors != 0 {
			t.Errorf("the disk has counted %+v where it came to", r)
		}
	}
	moved.enter("dd if=/dev/urandom of=/disk/precious bs=64k count=64 conv=fsync && echo sum $(md5sum < /disk/precious)")
	sum := moved.awaitLine("sum ")
	moved.signal(9)
	<-moved.ended

	second := h.startWithDisk("a", "mv.job=shell", disk+",serial=the-disk")
	second.awaitLine("GUEST READY cpus 2 ")
	second.enter("echo serial is $(cat /sys/block/vda/serial); mkdir /disk && mount -t ext4 /dev/vda /disk && echo sum $(md5sum < /disk/precious)")
	if got := second.awaitLine("sum "); got != sum {
		t.Errorf("what was synced is lost: %q, want %q", got, sum)
	}
	second.awaitLine("serial is the-disk")
	h.goesOnFromASnapshot(second, "a")
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
	c, err := client.Dial(vm)
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
