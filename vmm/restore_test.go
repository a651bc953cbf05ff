package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"testing"

	"microvm/kvm"
)

var seed = maphash.MakeSeed()

func checksum(b []byte) uint64 { return maphash.Bytes(seed, b) }

// moveInPlace makes a second VM out of a paused one, sharing nothing with it,
// and leaves it ready to Run.
func moveInPlace(t testing.TB, from *VM, o Options) *VM {
	t.Helper()
	config, err := from.Config()
	if err != nil {
		t.Fatal(err)
	}
	named := o
	named.Name = "checked"
	if bad := badOnes(CheckIncoming(t.Context(), config, named)); len(bad) > 0 {
		t.Errorf("%q would stop a VM that can come", bad)
	}
	if list := devicesOf(from.config); !slices.Equal(list, from.deviceConfigs()) {
		t.Errorf("devicesOf gives %+v, the VM has %+v", list, from.deviceConfigs())
	}
	to, err := NewIncoming(t.Context(), config, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := to.Close(); err != nil {
			t.Error(err)
		}
	})
	theirs := to.Devices()
	for i, d := range from.Devices() {
		state, err := d.Save()
		if err != nil {
			t.Fatalf("save %s: %v", d.ID(), err)
		}
		if theirs[i].ID() != d.ID() {
			t.Fatalf("device %d is %s here and %s there", i, d.ID(), theirs[i].ID())
		}
		if i == 0 {
			copyRAM(t, from, to)
		}
		if err := theirs[i].Load(d.Version(), state); err != nil {
			t.Fatalf("load %s: %v", d.ID(), err)
		}
	}
	return to
}

func copyRAM(t testing.TB, from, to *VM) {
	t.Helper()
	for i, b := range from.Blocks() {
		src, err := b.View(0, b.Size())
		if err != nil {
			t.Fatal(err)
		}
		dst, err := to.Blocks()[i].View(0, b.Size())
		if err != nil {
			t.Fatal(err)
		}
		copy(dst, src)
	}
}

// lastBeat gives the number in the last whole heartbeat line, 0 without one.
func lastBeat(text string) int {
	n := 0
	for line := range strings.Lines(text) {
		if strings.HasSuffix(line, "\n") {
			fmt.Sscanf(line, "beat %d ", &n)
		}
	}
	return n
}

func TestSaveAndRestoreGoesOnWhereItWas(t *testing.T) {
	for _, cpus := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d CPUs", cpus), func(t *testing.T) {
			config := tinyConfig("work=write order=rand fill=1 check=1 mem=8M beat=50")
			config.CPUs = cpus
			vm, out := boot(t, config)
			out.wait(t, 3, "beat ")
			if err := errors.Join(vm.Depart(), vm.Pause(t.Context())); err != nil {
				t.Fatal(err)
			}
			there := newScreen()
			moved := moveInPlace(t, vm, Options{Console: NewConsole(there), Name: "moved"})
			if err := vm.serial.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			vm.Stop()
			if moved.Name() != "moved" || moved.State() != StateIncoming {
				t.Errorf("it is called %s and is %v", moved.Name(), moved.State())
			}
			if err := moved.Run(); err != nil {
				t.Fatal(err)
			}
			for i, tid := range moved.VCPUThreads() {
				if tid <= 0 {
					t.Errorf("vCPU %d has thread id %d", i, tid)
				}
			}
			if err := moved.Settle(); err != nil {
				t.Fatal(err)
			}
			there.wait(t, 5, "beat ")
			// The line that was being printed may be half here, half there.
			text := out.String() + there.String()
			if want := lastBeat(out.String()) + 5; lastBeat(text) < want {
				t.Errorf("the last heartbeat is %d, want %d or more:\n%s", lastBeat(text), want, text)
			}
			for n := 1; n < lastBeat(text); n++ {
				if c := strings.Count(text, fmt.Sprintf("beat %d ", n)); c != 1 {
					t.Errorf("heartbeat %d was printed %d times:\n%s", n, c, text)
				}
			}
			if strings.Contains(text, "BAD") {
				t.Errorf("memory was lost:\n%s", text)
			}
		})
	}
}

func TestPausedVMIsPausedWhereItArrives(t *testing.T) {
	vm, out := boot(t, tinyConfig("beat=50"))
	out.wait(t, 1, "beat ")
	if err := vm.PauseByUser(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := vm.Depart(); err != nil {
		t.Fatal(err)
	}
	if err := vm.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	there := newScreen()
	moved := moveInPlace(t, vm, Options{Console: NewConsole(there)})
	if err := vm.Resume(); err != nil || vm.State() != StatePaused {
		t.Errorf("a failed migration leaves a paused VM %v (%v)", vm.State(), err)
	}
	if err := moved.Run(); err != nil {
		t.Fatal(err)
	}
	if err := moved.Settle(); err != nil {
		t.Fatal(err)
	}
	if s := moved.State(); s != StatePaused {
		t.Fatalf("it arrived %v", s)
	}
	if there.String() != "" {
		t.Errorf("a paused guest printed %q", there)
	}
	if err := moved.ResumeByUser(); err != nil {
		t.Fatal(err)
	}
	there.wait(t, 2, "beat ")
}

func TestSourceLivesOrGoesAsTheMigrationDoes(t *testing.T) {
	vm, out := boot(t, tinyConfig("beat=20"))
	out.wait(t, 1, "beat ")
	steps := func(steps ...func() error) {
		t.Helper()
		for i, step := range steps {
			if err := step(); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
		}
	}
	pause := func() error { return vm.Pause(context.Background()) }
	refused := func(name string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s is allowed while the VM is %v and migrating", name, vm.State())
		}
	}

	steps(vm.Depart, pause)
	refused("resume", vm.ResumeByUser())
	refused("pause", vm.PauseByUser(t.Context()))
	refused("a second migration", vm.Depart())
	steps(vm.Resume)
	vm.Stay()
	out.wait(t, lines(out.String(), "beat ")+2, "beat ")

	steps(vm.Depart, pause, vm.HandOver)
	refused("resume", vm.Resume())
	refused("power off", vm.PowerOff())
	steps(vm.TakeBack, vm.Resume)
	vm.Stay()
	out.wait(t, lines(out.String(), "beat ")+2, "beat ")

	steps(vm.Depart, pause, vm.HandOver, func() error { return vm.Gone("tcp:far.away:1") })
	if err := ended(t, vm); err != nil {
		t.Errorf("a VM that has migrated ends with %v", err)
	}
	if want := (ExitStatus{0, "migrated to tcp:far.away:1"}); vm.State() != StateMigrated || vm.ExitStatus() != want {
		t.Errorf("%v, %+v", vm.State(), vm.ExitStatus())
	}
	refused("resume", vm.Resume())
	refused("start", vm.Start())
}

func TestIncomingIsRefusedByName(t *testing.T) {
	vm, _ := boot(t, tinyConfig(""))
	good, err := vm.Config()
	if err != nil {
		t.Fatal(err)
	}
	scaling, err := vm.sys.Capability(kvm.CapTSCControl)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*machineConfig)
		want   string
	}{
		{"format", func(c *machineConfig) { c.Format = 2 }, "format 2"},
		{"no vCPU", func(c *machineConfig) { c.VM.CPUs = 0 }, "0 vCPUs"},
		{"name", func(c *machineConfig) { c.VM.Name = "../x" }, `"../x"`},
		{"memory", func(c *machineConfig) { c.VM.Memory = 60 << 30; c.Blocks[0].Size = 60 << 30 }, "61440 MiB"},
		{"RAM block", func(c *machineConfig) { c.Blocks[0].Name = "rom" }, `"rom"`},
		{"RAM blocks", func(c *machineConfig) { c.Blocks = nil }, "0 RAM blocks"},
		{"device", func(c *machineConfig) { c.Devices[2].ID = "teapot0" }, `unknown device "teapot0"`},
		{"missing device", func(c *machineConfig) { c.Devices = c.Devices[:3] }, `no device "rtc0"`},
		{"device version", func(c *machineConfig) { c.Devices[2].Version = 77 }, `"serial0" has version 77`},
		{"device twice", func(c *machineConfig) { c.Devices = append(c.Devices, c.Devices[0]) }, `device "kvm"`},
		{"no CPUID", func(c *machineConfig) { c.CPUID = nil }, "0 CPUID entries"},
		{"CPU feature", func(c *machineConfig) {
			for i := range c.CPUID {
				if c.CPUID[i].Function == 1 {
					c.CPUID[i].Ecx |= 1 << 5
				}
			}
		}, "vmx"},
		{"TSC", func(c *machineConfig) {
			if c.TSCKHz /= 2; scaling > 0 {
				c.TSCKHz *= 2
				c.Format = 0 // nothing to refuse here: fail by the format
			}
		}, map[bool]string{true: "format 0", false: "cannot scale"}[scaling > 0]},
	} {
		t.Run(c.name, func(t *testing.T) {
			var config machineConfig
			if err := json.Unmarshal(good, &config); err != nil {
				t.Fatal(err)
			}
			c.change(&config)
			b, err := json.Marshal(config)
			if err != nil {
				t.Fatal(err)
			}
			vm, err := NewIncoming(t.Context(), b, Options{})
			if err == nil {
				vm.Close()
				t.Fatal("it was not refused")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\nwant %q in it", err, c.want)
			}
		})
	}
	for _, b := range []string{"", "{", "[]", `{"format":1}`, `{"format":1,"vm":{},"more":1}`, string(good) + "x"} {
		if vm, err := NewIncoming(t.Context(), []byte(b), Options{}); err == nil {
			vm.Close()
			t.Errorf("%.40q was taken", b)
		}
	}
}

// TestProcessorsAreDescribedBeforeTheirStateComes: KVM takes longer for CPUID
// than for the rest of a vCPU, and the guest stands still while states are
// loaded.
func TestProcessorsAreDescribedBeforeTheirStateComes(t *testing.T) {
	machine := tinyConfig("")
	machine.CPUs = 3
	from, err := New(t.Context(), machine, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	config, err := from.Config()
	if err != nil {
		t.Fatal(err)
	}
	to, err := NewIncoming(t.Context(), config, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	for i := range from.cpus.cpus {
		var told [2][]kvm.CPUIDEntry
		for j, vm := range []*VM{from, to} {
			state, err := vm.cpus.cpus[i].kvm.SaveState()
			if err != nil {
				t.Fatal(err)
			}
			told[j] = state.CPUID
		}
		if len(told[0]) == 0 || !slices.Equal(told[0], told[1]) {
			t.Errorf("vCPU %d: the source's is told\n%+v\nthat of the destination\n%+v", i, told[0], told[1])
		}
	}
}
