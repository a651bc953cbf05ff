//go:build linuxguest && debian

package main

import (
	"os"
	"testing"
	"time"
)

// debianDisk is a disk with Debian on it, to which a test may write.
func debianDisk(t *testing.T) string {
	t.Helper()
	disk := os.Getenv("MICROVM_GUEST_ROOT")
	if disk == "" {
		t.Skip("MICROVM_GUEST_ROOT is not set; docs/testing.md says how to run this test in the lab")
	}
	return disk
}

// bootDebian boots Debian from its disk, and waits until somebody can log in.
func (h *host) bootDebian(name, disk string) *process {
	h.t.Helper()
	kernel, initrd := linuxFiles(h.t)
	begun := time.Now()
	p := h.start("run", "--name", name, "-k", kernel, "-i", initrd, "-p", "console=ttyS0 root=/dev/vda quiet panic=-1",
		"-m", "512M", "-c", "2", "--disk", disk+",queues=2,serial=root-1")
	p.patience = linuxPatience
	p.awaitOutput("debian login: ")
	h.t.Logf("a login prompt after %v", time.Since(begun).Round(time.Second/10))
	return p
}

// logIn gets a shell that prints nothing but what it is told to.
func (p *process) logIn() {
	p.t.Helper()
	p.enter("root")
	p.awaitOutput("root@debian:~# ")
	// Bash and its terminal are a world of their own.
	p.enter("stty -echo; PS1= exec sh -c 'echo; echo logged in; exec sh'")
	p.awaitLine("logged in")
}

// work is what fio does while the guest moves: it reads back and checks what it
// has written, again and again.
const work = "fio --name=work --filename=/root/work --size=16M --rw=randwrite --bsrange=4k-64k --ioengine=libaio --iodepth=16 --direct=1 " +
	"--verify=crc32c --verify_backlog=32 --verify_fatal=1 --time_based --runtime=15 --eta=never --output=/root/work.out"

// complaints has the guest count what its kernel has logged of things that went
// wrong, and say what they were.
const complaints = "dmesg | grep -E 'lockup|stall|starved|clocksource.*(unstable|skew)|blocked for more|BUG:|WARNING:|Call Trace|I/O error|EXT4-fs (error|warning)|device needs reset' | " +
	"{ echo complaints: $(cat); }"

// TestDebianWorksOnItsDiskWhileItMoves: from the boot by systemd to the reboot,
// with fio's checks and the kernel's log clean.
func TestDebianWorksOnItsDiskWhileItMoves(t *testing.T) {
	disk := debianDisk(t)
	h := newHost(t)
	source := h.bootDebian("a", disk)
	source.logIn()
	source.enter("echo failed units: $(systemctl --failed --plain --no-legend)")
	if line := source.awaitLine("failed units:"); line != "failed units:" {
		t.Error(line)
	}
	source.enter(complaints)
	known := source.awaitLine("complaints:")
	h.refuse(t, disk)
	t.Log("logged in")
	before := h.counts("a", "blk0").Counts.Counters["io_uring"]
	source.enter(work + "; echo fio ended with $?; tail -n 3 /root/work.out")
	// Many at a time are done by the io_uring.
	for h.counts("a", "blk0").Counts.Counters["io_uring"] < before+100 {
		source.runs()
		time.Sleep(100 * time.Millisecond)
	}
	t.Log("fio works")
	dest, addr := h.receive("--name", "b", "--disk", disk)
	dest.patience = linuxPatience
	migrate := h.start("migrate", "a", addr, "--postcopy", "--report", "json")
	migrate.patience = linuxPatience
	migrate.wait(0)
	source.wait(0)
	t.Logf("report: %s", migrate.stdout)
	h.refuse(t, disk)
	if line := dest.awaitLine("fio ended with "); line != "fio ended with 0" {
		t.Error(line)
	}
	t.Log("fio has ended")
	there := h.counts("b", "blk0")
	for _, sort := range []string{"read", "write"} {
		if r := there.Counts.Of(sort); r.Requests == 0 || r.Errors != 0 {
			t.Errorf("the disk has counted %+v", r)
		}
	}
	for i, q := range there.Queues {
		if q.Kicks == 0 || q.Interrupts == 0 {
			t.Errorf("queue %d has counted %+v", i, q)
		}
	}
	dest.enter(complaints)
	if line := dest.awaitLine("complaints:"); line != known {
		t.Errorf("the guest's kernel had %q, and then %q", known, line)
	}
	dest.enter("md5sum /root/work > /root/sum; sync; reboot")
	dest.wait(32)
	if os.Getenv("MICROVM_TEST_DEBIAN_AGAIN") == "" {
		return
	}
	again := h.bootDebian("a", disk)
	again.logIn()
	again.enter("md5sum -c /root/sum")
	again.awaitLine("/root/work: OK")
	again.enter("poweroff")
	again.wait(0)
}
