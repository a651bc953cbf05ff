package vmm

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"microvm/kvm"
	"microvm/memslot/hugepool"
	"microvm/migration"
)

// badOnes are the findings that would stop a VM, by name.
func badOnes(found []migration.Finding) map[string]string {
	bad := map[string]string{}
	for _, f := range found {
		if f.Status == migration.FindingMissing {
			bad[f.What] += f.Text
		}
	}
	return bad
}

// TestAVMIsUnfitForEachReasonByItsName: what stops it there is all said at once,
// in the words in which NewIncoming refuses it, and nothing is left behind.
func TestAVMIsUnfitForEachReasonByItsName(t *testing.T) {
	t.Setenv(StateDirEnv, t.TempDir())
	config := withDisks(t)
	vm, _ := boot(t, config)
	describe := func(change func(c *machineConfig)) []byte {
		b, err := vm.Config()
		if err != nil {
			t.Fatal(err)
		}
		var c machineConfig
		if err := json.Unmarshal(b, &c); err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(&c)
		}
		if b, err = json.Marshal(c); err != nil {
			t.Fatal(err)
		}
		return b
	}
	small := filepath.Join(t.TempDir(), "small.img")
	if err := os.WriteFile(small, make([]byte, 1<<19), 0o600); err != nil {
		t.Fatal(err)
	}
	paths := []string{config.Disks[0].Path, config.Disks[1].Path}
	pages := uint64(hugepool.Size(t) + 1024)
	for name, c := range map[string]struct {
		change func(c *machineConfig)
		o      Options
		want   map[string]string // names, with words of the text
	}{
		"it is fit":                {nil, Options{Disks: paths}, nil},
		"no disks were named":      {nil, Options{}, map[string]string{"disk": "--disk FILE for each"}},
		"a disk that is missing":   {nil, Options{Disks: []string{paths[0], "/no/such.img"}}, map[string]string{"disk": "/no/such.img: no such file"}},
		"a disk that is too small": {nil, Options{Disks: []string{small, paths[1]}}, map[string]string{"disk": "524288 bytes here"}},
		"a network card":           {func(c *machineConfig) { c.VM.Nets = []NetConfig{{MAC: "02:00:00:00:00:01"}} }, Options{Disks: paths}, map[string]string{"net": "say --net", "devices": `no device "net0"`}},
		"a bridge that is missing": {func(c *machineConfig) {
			c.VM.Nets = []NetConfig{{MAC: "02:00:00:00:00:01"}}
			c.Devices = append(c.Devices, deviceConfig{"net0", 101})
		}, Options{Disks: paths, Nets: []TapConfig{{Bridge: "mvnone"}}}, map[string]string{"net": "bridge mvnone: there is none"}},
		"CPU features": {func(c *machineConfig) {
			for i, e := range c.CPUID {
				if e.Function == 0x8000_0001 {
					c.CPUID[i].Edx |= 3 << 30
				}
			}
		}, Options{Disks: paths}, map[string]string{"cpu": "3dnowext, 3dnow"}},
		"another TSC":           {func(c *machineConfig) { c.TSCKHz = 0 }, Options{Disks: paths}, map[string]string{"tsc": "0 kHz"}},
		"too much memory":       {func(c *machineConfig) { c.VM.Memory = 64 << 30; c.Blocks[0].Size = 64 << 30 }, Options{Disks: paths}, map[string]string{"memory": "the guest has 65536 MiB"}},
		"too many huge pages":   {func(c *machineConfig) { c.VM.Memory = pages << 21; c.Blocks[0].Size = pages << 21 }, Options{Disks: paths, Hugepages: new(true)}, map[string]string{"memory": "--hugepages off"}},
		"a newer device":        {func(c *machineConfig) { c.Devices[0].Version = 99 }, Options{Disks: paths}, map[string]string{"devices": `device "kvm" has version 99`}},
		"a vsock path for none": {nil, Options{Disks: paths, Vsock: "/tmp/v.sock"}, map[string]string{"vsock": "no vsock device"}},
		"another format":        {func(c *machineConfig) { c.Format = 7 }, Options{Disks: paths}, map[string]string{"machine": "format 7"}},
		"everything at once": {func(c *machineConfig) {
			c.VM.Memory, c.Blocks[0].Size, c.TSCKHz, c.Devices[0].Version = 64<<30, 64<<30, 0, 99
		}, Options{}, map[string]string{"disk": "--disk", "memory": "65536 MiB", "tsc": "0 kHz", "devices": "99"}},
		"of a sample, its host's alone": {func(c *machineConfig) { c.Sample, c.TSCKHz, c.Devices = true, 0, nil }, Options{}, map[string]string{"tsc": "0 kHz"}},
	} {
		t.Run(name, func(t *testing.T) {
			if available, _, err := AvailableMemory(); err != nil || available >= 64<<30 && strings.Contains(name, "memory") {
				t.Skipf("%d bytes available, %v: run this test on a host with less than 64 GiB free", available, err)
			}
			description := describe(c.change)
			c.o.Name = "there"
			bad := badOnes(CheckIncoming(t.Context(), description, c.o))
			for what, words := range c.want {
				if !strings.Contains(bad[what], words) {
					t.Errorf("%s is %q, want %q in it", what, bad[what], words)
				}
			}
			if len(bad) != len(c.want) {
				t.Errorf("%q stop it, want %d reasons", bad, len(c.want))
			}
			// The other way to find out says the same.
			incoming, err := NewIncoming(t.Context(), description, c.o)
			if err == nil {
				err = incoming.Close()
				if len(bad) > 0 {
					t.Errorf("%q would stop it, and it was built", bad)
				}
			} else if len(bad) == 0 {
				t.Errorf("nothing would stop it, and %v did", err)
			}
			for _, words := range c.want {
				if err != nil && (strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "sample")) {
					return
				}
			}
			if err != nil {
				t.Errorf("it is refused with %v, which is none of %q", err, c.want)
			}
		})
	}
	if owned := hasOwner(t, paths[0]); !owned {
		t.Error("the VM has lost its disk")
	}
}

// TestANameThatIsTakenStopsAVM unless the destination gives it another one.
func TestANameThatIsTakenStopsAVM(t *testing.T) {
	t.Setenv(StateDirEnv, t.TempDir())
	vm, _ := boot(t, tinyConfig("beat=50"))
	description, err := vm.Config()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := OpenStateDir("test")
	if err != nil {
		t.Fatal(err)
	}
	if bad := badOnes(CheckIncoming(t.Context(), description, Options{})); !strings.Contains(bad["name"], ErrNameTaken.Error()) {
		t.Errorf("%q", bad)
	}
	if err := dir.Release(ExitStatus{}, nil); err != nil {
		t.Fatal(err)
	}
	if bad := badOnes(CheckIncoming(t.Context(), description, Options{})); len(bad) > 0 {
		t.Errorf("%q", bad)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if bad := badOnes(CheckIncoming(ended, description, Options{})); !strings.Contains(bad["machine"], "too long") {
		t.Errorf("of a host without time: %q", bad)
	}
}

// FuzzCheckIncoming: a description comes from a stranger.
func FuzzCheckIncoming(f *testing.F) {
	c := machineConfig{Format: machineFormat, VM: tinyConfig(""), CPUID: []kvm.CPUIDEntry{{Function: 1}}, Devices: devicesOf(tinyConfig(""))}
	c.Blocks = []blockConfig{{ramBlock, c.VM.Memory}}
	c.VM.Nets = []NetConfig{{MAC: "02:00:00:00:00:01"}}
	c.VM.Vsock = &VsockConfig{CID: 3}
	b, err := json.Marshal(c)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, found := range CheckIncoming(t.Context(), b, Options{Name: "a", Nets: []TapConfig{{}}, Disks: []string{os.DevNull}}) {
			if found.What == "" || found.Text == "" {
				t.Errorf("%+v", found)
			}
		}
	})
}
