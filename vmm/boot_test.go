package vmm

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestGuestBootsAndPowersOff(t *testing.T) {
	for _, c := range []struct {
		cpus   int
		memory uint64
	}{
		{1, 128 << 20},
		{4, 128 << 20},
		{1, 4 << 30},
		{4, 4 << 30},
	} {
		t.Run(fmt.Sprintf("%d CPUs, %d MiB", c.cpus, c.memory>>20), func(t *testing.T) {
			config := tinyConfig("beat=100 stop=3")
			config.CPUs, config.Memory = c.cpus, c.memory
			vm, out := boot(t, config)
			if err := ended(t, vm); err != nil {
				t.Fatalf("%v; the guest printed:\n%s", err, out)
			}
			if vm.State() != StateStopped || vm.ExitStatus() != (ExitStatus{0, "powered off"}) {
				t.Errorf("state %v, exit %+v", vm.State(), vm.ExitStatus())
			}
			if want := fmt.Sprintf("tiny: cpus=%d ", c.cpus); !strings.HasPrefix(out.String(), want) {
				t.Errorf("want a line %q..., got:\n%s", want, out)
			}
			if !strings.Contains(out.String(), "\nend\r\n") {
				t.Errorf("the last of the output is missing:\n%s", out)
			}
		})
	}
}

func TestEachKindOfWork(t *testing.T) {
	for _, cmdline := range []string{
		"work=idle fill=0",
		"work=touch fill=1 check=1 order=seq",
		"work=write fill=1 check=1 order=seq",
		"work=write fill=1 check=1 order=rand",
		"work=write fill=full check=1 order=rand sweep=1 mem=8M span=4M rate=5000",
	} {
		t.Run(cmdline, func(t *testing.T) {
			if !strings.Contains(cmdline, "mem=") {
				cmdline += " mem=8M"
			}
			config := tinyConfig(cmdline + " beat=100 stop=5")
			config.CPUs = 2
			vm, out := boot(t, config)
			if err := ended(t, vm); err != nil {
				t.Fatalf("%v; the guest printed:\n%s", err, out)
			}
			if text := out.String(); strings.Contains(text, "BAD") || strings.Contains(text, "ignored") || !strings.Contains(text, "beat 5 ") {
				t.Errorf("the guest printed:\n%s", text)
			}
		})
	}
}

func TestGuestEnds(t *testing.T) {
	for _, c := range []struct {
		end  string
		want error
		code int
	}{
		{"poweroff", nil, 0},
		{"reboot", ErrReset, 32},
		{"triple", ErrCrash, 33},
		{"panic", ErrGuestPanic, 34},
	} {
		t.Run(c.end, func(t *testing.T) {
			vm, out := boot(t, tinyConfig("beat=50 stop=1 end="+c.end))
			err := ended(t, vm)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v; the guest printed:\n%s", err, c.want, out)
			}
			if vm.ExitStatus().Code != c.code {
				t.Errorf("exit %+v, want code %d", vm.ExitStatus(), c.code)
			}
		})
	}
}

func TestCrashShowsRegistersAndCode(t *testing.T) {
	vm, _ := boot(t, tinyConfig("beat=50 stop=1 end=triple"))
	var crash *CrashError
	if err := ended(t, vm); !errors.As(err, &crash) {
		t.Fatalf("got %v, want a *CrashError", err)
	}
	if crash.Regs == nil || crash.Sregs == nil {
		t.Fatalf("no registers:\n%s", crash.Dump())
	}
	if crash.isReset() {
		// An AMD processor. The dump has to say so, and cannot say more.
		if !strings.Contains(crash.Dump(), resetNote) {
			t.Errorf("the registers of a reset are not explained:\n%s", crash.Dump())
		}
	} else if crash.Regs.RIP < 0x10_0000 || len(crash.Code) == 0 {
		t.Errorf("no code bytes, or the registers are not the kernel's:\n%s", crash.Dump())
	}
	for _, want := range []string{"vCPU 0", "triple fault", fmt.Sprintf("rip %016x", crash.Regs.RIP), "cr3", "code"} {
		if !strings.Contains(crash.Dump(), want) {
			t.Errorf("%q is missing in:\n%s", want, crash.Dump())
		}
	}
}

func TestConsoleEcho(t *testing.T) {
	needKVM(t)
	out := newScreen()
	console := NewConsole(out)
	vm, err := New(t.Context(), tinyConfig(""), Options{Console: console})
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	if err := vm.Start(); err != nil {
		t.Fatal(err)
	}
	out.wait(t, 1, "ready")
	// Longer than the receive FIFO.
	line := "the quick brown fox jumps over the lazy dog"
	if err := console.Type(t.Context(), []byte(line+"\r")); err != nil {
		t.Fatal(err)
	}
	out.wait(t, 1, "echo "+line)
}

func TestHugePagesAreTakenOrTheirLackIsNamed(t *testing.T) {
	needKVM(t)
	config := tinyConfig("beat=50 stop=1")
	config.Hugepages = true
	vm, err := New(t.Context(), config, Options{})
	if err != nil {
		if text := err.Error(); !strings.Contains(text, "huge") || !strings.Contains(text, "nr_hugepages") {
			t.Errorf("neither the lack nor the remedy is named: %v", err)
		}
		return
	}
	defer vm.Close()
	if vm.ram.PageSize() != hugePageSize {
		t.Errorf("pages of %d bytes", vm.ram.PageSize())
	}
	if err := vm.Start(); err != nil {
		t.Fatal(err)
	}
	if err := ended(t, vm); err != nil {
		t.Error(err)
	}
}

func TestVMThatCannotBeBuiltLeavesNothing(t *testing.T) {
	needKVM(t)
	open := func() int {
		t.Helper()
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	before := open()
	for _, change := range []func(*Config){
		func(c *Config) { c.Kernel = "/no/such/kernel" },
		func(c *Config) { c.Kernel = "boot_test.go" }, // a file, but no kernel
		func(c *Config) { c.Cmdline = strings.Repeat("x", 1<<20) },
	} {
		config := tinyConfig("")
		change(&config)
		if vm, err := New(t.Context(), config, Options{}); err == nil {
			vm.Close()
			t.Errorf("%.80v boots", config)
		}
	}
	if after := open(); after > before {
		t.Errorf("%d files were open before, %d after", before, after)
	}
}
