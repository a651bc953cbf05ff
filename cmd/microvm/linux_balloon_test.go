//go:build linuxguest

package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"microvm/devices/virtio/balloon"
	"microvm/vmm/client"
)

// rss is how much memory a process has, in MiB.
func (p *process) rss() int {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(status), "VmRSS:")
	kib := 0
	if _, err := fmt.Sscan(line, &kib); err != nil {
		p.t.Fatalf("VmRSS: %v", err)
	}
	return kib >> 10
}

// awaitRSS waits until a process has as much memory as is right, and returns
// how much that is.
func (p *process) awaitRSS(what string, right func(mib int) bool) int {
	p.t.Helper()
	now := 0
	askUntil(p.t, p.patience, func() (bool, string) {
		now = p.rss()
		return right(now), fmt.Sprintf("%s: the VM takes %d MiB of the host's memory", what, now)
	})
	p.t.Logf("%s: %d MiB", what, now)
	return now
}

// balloon asks a VM of its balloon.
func (h *host) balloon(name string) balloon.Stats {
	h.t.Helper()
	c, err := client.Dial(name)
	if err != nil {
		h.t.Fatal(err)
	}
	s, err := c.Balloon(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// awaitBalloon waits until it holds so many MiB.
func (h *host) awaitBalloon(name string, mib uint64) balloon.Stats {
	h.t.Helper()
	var s balloon.Stats
	askUntil(h.t, linuxPatience, func() (bool, string) {
		s = h.balloon(name)
		return s.Actual == mib<<20, fmt.Sprintf("the balloon is to hold %d MiB: %+v", mib, s)
	})
	return s
}

// TestLinuxLendsItsMemoryToItsHost by a balloon and by saying what is free, gets
// it back, and still does where it has moved to; its random numbers are the
// host's.
func TestLinuxLendsItsMemoryToItsHost(t *testing.T) {
	kernel, initrd := linuxFiles(t)
	h := newHost(t)
	p := h.start("run", "--name", "a", "-k", kernel, "-i", initrd, "-p", linuxCmdline, "-m", "256M", "-c", "2",
		"--rng", "--balloon", "0,deflate-on-oom,free-page-reporting")
	p.patience = 90 * time.Second
	p.awaitLine("GUEST READY cpus 2 ")
	p.enter("echo rng is $(cat /sys/class/misc/hw_random/rng_current), gives $(dd if=/dev/hwrng bs=64 count=4 2> /dev/null | wc -c)")
	p.awaitLine("rng is virtio_rng.0, gives 256")
	// Debian's kernel has no driver of it, but finds it, and how it would be told.
	p.enter("echo generation ID at $(cat /sys/bus/acpi/devices/MVMM0001:00/path), $(cat /sys/bus/acpi/devices/MVMM0001:00/modalias), told by $(grep -c ACPI:Ged /proc/interrupts), ACPI errors $(dmesg | grep -cE 'ACPI.*(Error|Warning|Firmware Bug)')")
	p.awaitLine(`generation ID at \_SB_.VGEN, acpi:MVMM0001:VM_GEN_COUNTER:, told by 1, ACPI errors 0`)

	// Every other page of the two copies in turn, since tee writes little at a
	// time, so that without the one there are many pages free, and none is
	// reported, for want of large free pieces: that is for the balloon.
	p.enter("dd if=/dev/urandom of=/data/c bs=1M count=24 2> /dev/null; tee /data/a < /data/c > /data/b; rm /data/b; echo sum $(md5sum < /data/c)")
	sum := p.awaitLine("sum ")
	before := p.rss()
	h.must(0, "balloon", "a", "7.8125%")
	s := h.awaitBalloon("a", 20)
	low := p.awaitRSS("20 MiB are in the balloon", func(mib int) bool { return mib <= before-12 })
	if s.Guest["total_bytes"] == 0 || s.Guest["free_bytes"] == 0 || s.GivenBack < 20<<20 {
		t.Errorf("%+v", s)
	}
	h.must(0, "balloon", "a", "0")
	h.awaitBalloon("a", 0)
	p.enter("cp /data/c /data/b; echo all is used")
	p.awaitLine("all is used")
	high := p.awaitRSS("it has used them again", func(mib int) bool { return mib >= low+12 })
	p.enter("rm /data/a /data/b; echo much is free")
	p.awaitLine("much is free")
	p.awaitRSS("it has said what is free", func(mib int) bool { return mib <= high-24 })
	if s := h.balloon("a"); s.Reported < 24<<20 {
		t.Errorf("%+v", s)
	}

	// It moves while the balloon is being filled and memory becomes free.
	p.enter("cp /data/c /data/d; echo ready to go")
	p.awaitLine("ready to go")
	dest, addr := h.receive("--name", "b")
	dest.patience = linuxPatience
	p.enter("rm /data/d")
	h.must(0, "balloon", "a", "64M")
	migrate := h.start("migrate", "a", addr, "--postcopy", "--verify", "--report", "json")
	migrate.patience = linuxPatience
	migrate.wait(0)
	p.wait(0)
	report := readReport(t, migrate.stdout.String())
	checkCompleted(t, report, 256<<20, 2)
	h.awaitBalloon("b", 64)
	h.must(0, "balloon", "b", "0")
	h.awaitBalloon("b", 0)
	dest.enter("cp /data/c /data/d; cp /data/c /data/e; echo sum $(md5sum < /data/c)")
	if got := dest.awaitLine("sum "); got != sum {
		t.Errorf("its memory is %q, was %q", got, sum)
	}
	high = dest.rss()
	dest.enter("rm /data/d /data/e; echo rng gives $(dd if=/dev/hwrng bs=64 count=4 2> /dev/null | wc -c)")
	dest.awaitLine("rng gives 256")
	dest.awaitRSS("it has said what is free there", func(mib int) bool { return mib <= high-20 })
	dest.enter("dmesg | grep -iE 'balloon|virtio|out of memory' | sed 's/^/log: /'; poweroff -f")
	dest.wait(0)
	for line := range strings.Lines(dest.stdout.String()) {
		if strings.HasPrefix(line, "log: ") {
			t.Error(line)
		}
	}
}
