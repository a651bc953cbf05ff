package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// newImage makes a disk of 1 MiB of zeros, for a guest that has no drivers.
func newImage(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestVMWithDisksMovesOnlyToTheirFiles: a destination that was told of no disk,
// or of one that is too small, refuses before anything has moved. In every mode
// the disk goes with the VM and is nobody else's.
func TestVMWithDisksMovesOnlyToTheirFiles(t *testing.T) {
	h := newHost(t)
	disk, small := newImage(t), newImage(t)
	if err := os.Truncate(small, 4096); err != nil {
		t.Fatal(err)
	}
	source := h.boot("a", busy, "--disk", disk+",serial=s1")
	for _, c := range []struct {
		flags []string
		want  string
	}{
		{nil, "say --disk FILE for each"},
		{[]string{"--disk", small}, "has 4096 bytes here, and the guest's disk 1048576"},
	} {
		dest, addr := h.receive(append([]string{"--name", "b"}, c.flags...)...)
		migrate := h.start("migrate", "a", addr, "--postcopy")
		migrate.wait(4)
		if text := migrate.stderr.String(); !strings.Contains(text, c.want) {
			t.Errorf("with %v it says %q, want %q in it", c.flags, text, c.want)
		}
		dest.kill()
		source.goesOn(2)
	}
	from := "a"
	for to, mode := range map[string]string{"b": "postcopy", "c": "hybrid", "d": "precopy"} {
		dest, addr := h.receive("--name", to, "--disk", disk)
		h.start("migrate", from, addr, "--mode", mode, "--downtime", "1m").wait(0)
		source.wait(0)
		dest.goesOn(2)
		info, err := h.inspect(to)
		if err != nil {
			t.Fatal(err)
		}
		if len(info.Disks) != 1 || info.Disks[0].Path != disk || info.Disks[0].Serial != "s1" {
			t.Errorf("%s: its disks are %+v", mode, info.Disks)
		}
		thief := h.start("run", "--name", "thief", "--disk", disk)
		thief.wait(1)
		if text := thief.stderr.String(); !strings.Contains(text, "another process uses it") {
			t.Errorf("%s: a second VM with the disk says %q", mode, text)
		}
		from, source = to, dest
	}
}
