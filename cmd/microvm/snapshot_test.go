package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"microvm/migration"
)

// A VM is saved and restored as its user does it: by processes that are confined, into
// other names, in a jail; and the VM that was left running moves on.
func TestSnapshotAndRestore(t *testing.T) {
	h := newHost(t)
	dir := filepath.Join(h.root, "snapshot")
	first := h.boot("a", busy)
	var rep migration.SaveReport
	if err := json.Unmarshal([]byte(h.must(0, "snapshot", "a", dir, "--leave-running", "--format", "json").stdout), &rep); err != nil {
		t.Fatal(err)
	}
	if rep.VM != "a" || !rep.LeftRunning || rep.Passes < 1 || rep.MemoryBytes == 0 || rep.TotalNS < rep.DowntimeNS {
		t.Errorf("%+v", rep)
	}
	first.goesOn(2)
	h.must(exitRefused, "snapshot", "a", dir) // there is one
	h.must(exitNoVM, "snapshot", "b", dir+"2")
	if _, err := os.Stat(dir + "2"); !os.IsNotExist(err) {
		t.Errorf("a directory without a VM: %v", err)
	}

	there := []*process{
		h.start("restore", dir, "--name", "b"),
		h.start("restore", dir, "--name", "c", "--lazy"),
	}
	if os.Geteuid() == 0 {
		there = append(there, h.start("restore", dir, "--name", "d", "--lazy", "--jail", h.newJail()+",uid=65534,gid=65534"))
	}
	for i, p := range there {
		p.goesOn(3)
		if i > 0 {
			p.awaitError("all of the guest's memory is here")
		}
	}
	// One that was restored is like any other.
	dest, addr := h.receive("--name", "e")
	h.must(0, "migrate", "c", addr, "--postcopy", "--verify")
	there[1].wait(0)
	dest.goesOn(3)
	again := filepath.Join(h.root, "again")
	if out := h.must(0, "snapshot", "e", again).stdout; !strings.Contains(out, "the VM ended here") {
		t.Errorf("it says\n%s", out)
	}
	// Its name is free.
	if out := h.must(0, "restore", again, "--detach").stdout; out != "e\n" {
		t.Errorf("it is called %q", out)
	}
	dest.wait(0)
	h.must(0, "stop", "e", "--force")
	for _, p := range append(there, first, dest) {
		if strings.Contains(p.stdout.String(), "BAD") {
			t.Errorf("memory was lost:\n%s", p.stdout)
		}
	}
}

// A snapshot that is called off leaves nothing, and the VM runs on; one whose VM dies
// on the way is none, and says so.
func TestASnapshotThatComesToNothing(t *testing.T) {
	h := newHost(t)
	dir := filepath.Join(h.root, "snapshot")
	vm := h.boot("a", "fill=1 work=write order=rand beat=50", "-m", "768M")
	saving := h.start("snapshot", "a", dir, "--leave-running")
	writes := func() (bool, string) {
		var st unix.Stat_t
		err := unix.Stat(filepath.Join(dir, "memory"), &st)
		return err == nil && st.Blocks > 0, "nothing is written"
	}
	askUntil(t, patience, writes)
	saving.signal(unix.SIGINT)
	saving.wait(exitStays)
	if left, err := os.ReadDir(dir); !os.IsNotExist(err) {
		t.Errorf("it leaves %v, %v", left, err)
	}
	vm.goesOn(2)

	saving = h.start("snapshot", "a", dir, "--leave-running")
	askUntil(t, patience, writes)
	saving.kill() // it cannot clean up
	vm.goesOn(2)
	if r := h.must(exitFailure, "restore", dir); !strings.Contains(r.stderr, "never finished") {
		t.Errorf("restored: %s", r.stderr)
	}

	other := dir + "2"
	saving = h.start("snapshot", "a", other)
	askUntil(t, patience, func() (bool, string) {
		var st unix.Stat_t
		err := unix.Stat(filepath.Join(other, "memory"), &st)
		return err == nil && st.Blocks > 0, "nothing is written"
	})
	vm.kill()
	saving.wait(exitFailure)
	if _, err := os.Stat(other); !os.IsNotExist(err) {
		t.Errorf("it leaves %v", err)
	}
}

func TestSnapshotUsage(t *testing.T) {
	h := newHost(t)
	for _, args := range [][]string{
		{"snapshot", "a"}, {"snapshot", "a", "b", "c"}, {"snapshot", "a", "b", "--format", "xml"},
		{"restore"}, {"restore", "a", "b"}, {"restore", "a", "--console", "x"}, {"restore", "a", "--detach", "--console", "stdio"},
		{"restore", "a", "--name", "../x"}, {"restore", "a", "--net", "bridge"}, {"restore", "a", "--hugepages", "maybe"},
	} {
		h.must(exitUsage, args...)
	}
	if r := h.must(exitFailure, "restore", h.root); !strings.Contains(r.stderr, "no snapshot") {
		t.Errorf("%s", r.stderr)
	}
}
