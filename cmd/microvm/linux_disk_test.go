//go:build linuxguest

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
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

var diskLine = regexp.MustCompile(`(?m)^disk ok (\d+) up`)

// checkDisk checks what the guest's job "disk" said, wherever it was.
func checkDisk(t *testing.T, text string, rounds int) {
	t.Helper()
	for line := range strings.Lines(text) {
		if regexp.MustCompile(`^(DISK|DMESG) BAD`).MatchString(line) {
			t.Error(strings.TrimSpace(line))
		}
	}
	lines := diskLine.FindAllStringSubmatch(text, -1)
	for i, m := range lines {
		if m[1] != strconv.Itoa(i+1) {
			t.Errorf("%q is line %d of its kind", m[0], i+1)
		}
	}
	if len(lines) != rounds {
		t.Errorf("%d rounds of %d", len(lines), rounds)
	}
	for _, want := range []string{"\ndisk end ok", "\ndmesg ok"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q", strings.TrimSpace(want))
		}
	}
}

// startWithDisk boots a Linux guest that works on a disk, and waits for its
// first round.
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

func TestLinuxKeepsItsFilesWhereItMoves(t *testing.T) {
	const rounds = 8
	disk := newDisk(t)
	h := newHost(t)
	source := h.startWithDisk("a", "mv.job=disk mv.rounds="+strconv.Itoa(rounds), disk+",queues=2,serial=root-1")
	source.await("a round", func(text string) bool { return diskLine.MatchString(text) })
	h.refuse(t, disk)
	dest, addr := h.receive("--name", "b", "--disk", disk)
	dest.patience = linuxPatience
	migrate := h.start("migrate", "a", addr, "--postcopy", "--report", "json")
	migrate.patience = linuxPatience
	migrate.wait(0)
	source.wait(0)
	t.Logf("report: %s", migrate.stdout)
	h.refuse(t, disk)
	// The first to end there may have done its work at the source.
	dest.await("two rounds there", func(string) bool { return len(diskLine.FindAllString(screens(dest), -1)) >= 2 })
	d := h.counts("b", "blk0")
	dest.wait(0)
	checkDisk(t, screens(source, dest), rounds)
	if len(d.Queues) != 2 || d.Queues[0].Interrupts+d.Queues[1].Interrupts == 0 || d.Queues[0].Kicks+d.Queues[1].Kicks == 0 {
		t.Errorf("its queues have counted %+v", d.Queues)
	}
	for _, sort := range []string{"read", "write", "flush"} {
		if r := d.Counts.Of(sort); r.Requests == 0 || r.Errors != 0 {
			t.Errorf("the disk has counted %+v", r)
		}
	}
	image, err := blk.OpenImage(disk, false)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	if err := image.Lock(); err != nil {
		t.Errorf("nobody runs, and %v", err)
	}
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

// TestWhatLinuxHasSyncedOutlivesTheVMM: the VMM is killed right after the
// guest's fsync has returned.
func TestWhatLinuxHasSyncedOutlivesTheVMM(t *testing.T) {
	disk := newDisk(t)
	h := newHost(t)
	first := h.startWithDisk("a", "mv.job=shell", disk)
	first.awaitLine("GUEST READY cpus 2 ")
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
}

// TestLinuxSeesItsDiskGrow without being restarted, and cannot write to one
// that is read-only.
func TestLinuxSeesItsDiskGrow(t *testing.T) {
	disk, other := newDisk(t), newDisk(t)
	h := newHost(t)
	p := h.startWithDisk("a", "mv.job=shell", disk, other+",ro")
	p.awaitLine("GUEST READY cpus 2 ")
	p.enter("echo sizes $(cat /sys/block/vd[ab]/size) ro $(cat /sys/block/vd[ab]/ro)")
	p.awaitLine("sizes 131072 131072 ro 0 1")
	if err := os.Truncate(disk, 80<<20); err != nil {
		t.Fatal(err)
	}
	h.start("grow", "a").wait(0)
	p.enter("while [ $(cat /sys/block/vda/size) != 163840 ]; do sleep 0.1; done; echo grown")
	p.awaitLine("grown")
	p.enter("dd if=/dev/vda of=/dev/null bs=1M skip=64 && echo read; echo x > /dev/vdb || echo not written")
	p.awaitLine("read")
	p.awaitLine("not written")
	p.enter("poweroff -f")
	p.wait(0)
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
