package vmm

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"microvm/devices/virtio/blk"
)

func TestParseDisk(t *testing.T) {
	for text, want := range map[string]any{
		"/d":                              DiskConfig{Path: "/d"},
		"/d,ro":                           DiskConfig{Path: "/d", ReadOnly: true},
		"/a b,serial=x-1,queues=3,ro":     DiskConfig{Path: "/a b", ReadOnly: true, Serial: "x-1", Queues: 3},
		"/x/../d":                         DiskConfig{Path: "/d"},
		"":                                "no path",
		",ro":                             "no path",
		"/d,rw":                           `"rw"`,
		"/d,serial=":                      `"serial="`,
		"/d,serial=012345678901234567890": "20 bytes at most",
		"/d,queues=0":                     "1 or more",
		"/d,queues=17":                    "1 to 16",
		"/d,queues=-1":                    "1 to 16",
		"/d,queues=x":                     `"queues=x"`,
		"/d,,ro":                          `""`,
	} {
		got, err := ParseDisk(text)
		if refusal, ok := want.(string); ok {
			if err == nil || !strings.Contains(err.Error(), refusal) {
				t.Errorf("%q: %v, want %q in it", text, err, refusal)
			}
		} else if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
}

// withDisks is a VM with the tiny kernel, which has no drivers, and disks of 1
// MiB; one of them is read-only.
func withDisks(t *testing.T) Config {
	t.Helper()
	config := tinyConfig("beat=50")
	for i, name := range []string{"a.img", "b.img"} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		config.Disks = append(config.Disks, DiskConfig{Path: path, ReadOnly: i == 1, Queues: i + 1})
	}
	return config
}

// hasOwner says whether a VM owns the disk, by trying to take it.
func hasOwner(t *testing.T, path string) bool {
	t.Helper()
	image, err := blk.OpenImage(path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	return image.Lock() != nil
}

// TestDiskGoesWithItsVM: at each step of a migration that fails, and of one
// that does not, at most one VM has the disks, and it is the one that may run.
func TestDiskGoesWithItsVM(t *testing.T) {
	config := withDisks(t)
	paths := []string{config.Disks[0].Path, config.Disks[1].Path}
	want := func(step string, want bool) {
		t.Helper()
		for _, path := range paths {
			if hasOwner(t, path) != want {
				t.Errorf("%s: %s is owned: %t, want %t", step, path, !want, want)
			}
		}
	}
	vm, out := boot(t, config)
	out.wait(t, 1, "beat ")
	want("running", true)
	if _, err := New(t.Context(), config, Options{}); err == nil || !strings.Contains(err.Error(), paths[0]) {
		t.Errorf("a second VM with the disk: %v", err)
	}
	if err := errors.Join(vm.Depart(), vm.Pause(t.Context())); err != nil {
		t.Fatal(err)
	}
	moved := moveInPlace(t, vm, Options{Disks: paths})
	want("paused", true)
	if err := moved.Run(); err == nil || !strings.Contains(err.Error(), paths[0]) || moved.State() != StateIncoming {
		t.Errorf("it runs without its disk: %v, %v", moved.State(), err)
	}
	if err := vm.HandOver(); err != nil {
		t.Fatal(err)
	}
	want("handed over", false)
	if err := vm.TakeBack(); err != nil {
		t.Fatal(err)
	}
	want("taken back", true)
	if err := vm.HandOver(); err != nil {
		t.Fatal(err)
	}
	if err := moved.Run(); err != nil {
		t.Fatal(err)
	}
	want("running there", true)
	if err := vm.TakeBack(); err == nil || vm.State() != StatePostcopy {
		t.Errorf("taken back from where it runs: %v, %v", vm.State(), err)
	}
	if err := errors.Join(vm.Gone("there"), moved.Settle()); err != nil {
		t.Fatal(err)
	}
	want("gone", true)
	moved.Stop()
	want("ended", false)
}

func TestIncomingDisksAreThoseThatThisHostNamed(t *testing.T) {
	config := withDisks(t)
	vm, _ := boot(t, config)
	if err := errors.Join(vm.Depart(), vm.Pause(t.Context())); err != nil {
		t.Fatal(err)
	}
	machine, err := vm.Config()
	if err != nil {
		t.Fatal(err)
	}
	small := filepath.Join(t.TempDir(), "small.img")
	if err := os.WriteFile(small, make([]byte, 512), 0o600); err != nil {
		t.Fatal(err)
	}
	one, other := config.Disks[0].Path, config.Disks[1].Path
	for _, c := range []struct {
		here []string
		want string
	}{
		{nil, "--disk FILE for each"},
		{[]string{one}, "2 disks"},
		{[]string{one, other, other}, "told of 3"},
		{[]string{one, filepath.Join(t.TempDir(), "none.img")}, "none.img"},
		{[]string{small, other}, "small.img has 512 bytes here, and the guest's disk 1048576"},
	} {
		vm, err := NewIncoming(t.Context(), machine, Options{Disks: c.here})
		if err == nil {
			vm.Close()
			t.Errorf("%v was taken", c.here)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q in it", c.here, err, c.want)
		}
	}
}

func TestGuestWithoutDriversHasAGrowingDisk(t *testing.T) {
	config := withDisks(t)
	vm, out := boot(t, config)
	out.wait(t, 1, "beat ")
	if err := os.Truncate(config.Disks[0].Path, 3<<20); err != nil {
		t.Fatal(err)
	}
	if err := vm.GrowDisks(); err != nil {
		t.Fatal(err)
	}
	infos := vm.VirtioDevices()
	if len(infos) != 2 || infos[0].Counts.Gauges["size"] != 3<<20 || infos[1].Counts.Gauges["size"] != 1<<20 || len(infos[1].Queues) != 2 {
		t.Errorf("%+v", infos)
	}
	if err := os.Truncate(config.Disks[0].Path, 2<<20); err != nil {
		t.Fatal(err)
	}
	if err := vm.GrowDisks(); err == nil || !strings.Contains(err.Error(), "cannot shrink") {
		t.Errorf("it has shrunk: %v", err)
	}
	if err := vm.Depart(); err != nil {
		t.Fatal(err)
	}
	if err := vm.GrowDisks(); err == nil {
		t.Error("a disk grows while its VM moves")
	}
}
