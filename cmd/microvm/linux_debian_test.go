//go:build linuxguest && debian

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// bootDebian boots Debian from its disk, with a card on a host's bridge, and waits
// until somebody can log in.
func (n *network) bootDebian(s side, h *host, name, disk string) *process {
	h.t.Helper()
	kernel, initrd := linuxFiles(h.t)
	begun := time.Now()
	p := n.startIn(s, h, "run", "--name", name, "-k", kernel, "-i", initrd, "-p", "console=ttyS0 root=/dev/vda quiet panic=-1",
		"-m", "512M", "-c", "2", "--disk", disk+",queues=2,serial=root-1", "--net", "tap=auto,bridge=br0")
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

// upgrade is what apt does to a disk: dpkg makes a package of some hundred files,
// installs it, looks whether it is all there, and removes it.
const upgrade = "mkdir -p /root/p/DEBIAN /root/p/opt && cp -a /etc /var/lib/dpkg/info /root/p/opt && " +
	`printf 'Package: load\nVersion: 1\nArchitecture: all\nMaintainer: root\nDescription: load\n' > /root/p/DEBIAN/control && ` +
	"dpkg-deb -Znone --build /root/p /root/load.deb > /dev/null && dpkg -i /root/load.deb > /dev/null && diff -r --no-dereference /root/p/opt /opt && " +
	"dpkg -r load > /dev/null; echo dpkg ended with $? after $(find /root/p -type f | wc -l) files"

// TestDebianWorksOnItsDiskAndTheNetworkWhileItMoves between two hosts: from the
// boot by systemd to the reboot, with fio's checks and the kernel's log clean, and
// a TCP connection that stays.
func TestDebianWorksOnItsDiskAndTheNetworkWhileItMoves(t *testing.T) {
	const guestIP = "10.111.0.9"
	disk := debianDisk(t)
	h := newHost(t)
	n := newNetwork(t)
	left, right := n.sides()[0], n.sides()[1]
	n.bridge(left)
	n.bridge(right)
	listener := n.listen(left, 5000)
	taps := []*capture{n.watch(left, "mvtap0", etherAll), n.watch(right, "mvtap0", etherAll)}
	source := n.bootDebian(left, h, "a", disk)
	source.logIn()
	source.enter("echo failed units: $(systemctl --failed --plain --no-legend)")
	if line := source.awaitLine("failed units:"); line != "failed units:" {
		t.Error(line)
	}
	source.enter("card=$(ls /sys/class/net | grep -v lo); ip addr add " + guestIP + "/24 dev $card && ip link set $card up && " +
		"ping -q -c 3 -i 0.2 " + left.ip + " && echo its host answers $card")
	t.Log(source.awaitLine("its host answers"))
	source.enter(upgrade)
	line := source.awaitLine("dpkg ended with")
	if t.Log(line); !strings.HasPrefix(line, "dpkg ended with 0 ") {
		t.Error("dpkg does not work")
	}
	source.enter(complaints)
	known := source.awaitLine("complaints:")
	h.refuse(t, disk)
	source.enter("bash -c 'exec 3<>/dev/tcp/" + left.ip + "/5000; exec cat <&3 >&3' &")
	s := accept(t, listener, 1)
	s.flow(t, "at first", 64<<10)
	before := h.counts("a", "blk0").Counts.Counters["io_uring"]
	source.enter(work + "; echo fio ended with $?; tail -n 3 /root/work.out")
	// Many at a time are done by the io_uring.
	askUntil(t, linuxPatience, func() (bool, string) {
		source.runs()
		now := h.counts("a", "blk0").Counts.Counters["io_uring"]
		return now >= before+100, fmt.Sprintf("the io_uring has done %d requests of fio", now-before)
	})
	t.Logf("fio works; longest gap on the connection: %v", s.flow(t, "beside fio", 64<<10).Round(time.Millisecond))
	events := []string{filepath.Join(t.TempDir(), "source"), filepath.Join(t.TempDir(), "destination")}
	dest := n.startIn(right, h, "receive", "--name", "b", "--listen", "tcp:"+right.ip+":0", "--disk", disk, "--net", "tap=auto,bridge=br0", "--events", events[1])
	dest.patience = linuxPatience
	addr := dest.awaitLine("tcp:")
	begun := time.Now()
	migrate := h.start("migrate", "a", addr, "--postcopy", "--report", "json", "--events", events[0])
	migrate.patience = linuxPatience
	migrate.wait(0)
	source.wait(0)
	t.Logf("report: %s", migrate.stdout)
	t.Logf("longest gap on the connection: %v", s.flow(t, "after it has moved", 256<<10).Round(time.Millisecond))
	logSilence(t, begun, events, taps...)
	h.refuse(t, disk)
	if line := dest.awaitLine("fio ended with "); line != "fio ended with 0" {
		t.Error(line)
	}
	t.Log("fio has ended")
	s.flow(t, "when fio has ended", 64<<10)
	s.close(t)
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
	dest.enter("ping -q -c 3 -i 0.2 " + right.ip + " && echo its new host answers")
	dest.awaitLine("its new host answers")
	dest.enter(complaints)
	if line := dest.awaitLine("complaints:"); line != known {
		t.Errorf("the guest's kernel had %q, and then %q", known, line)
	}
	dest.enter("md5sum /root/work > /root/sum; sync; reboot")
	dest.wait(32)
	if os.Getenv("MICROVM_TEST_DEBIAN_AGAIN") == "" {
		return
	}
	again := n.bootDebian(right, h, "a", disk)
	again.logIn()
	again.enter("md5sum -c /root/sum")
	again.awaitLine("/root/work: OK")
	again.enter("poweroff")
	again.wait(0)
}
