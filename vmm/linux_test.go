//go:build linuxguest

package vmm

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// linuxConfig is a VM with the Linux guest of the lab, which does the job that
// mv.job names.
func linuxConfig(t *testing.T, cpus int, job string) Config {
	t.Helper()
	config := Config{
		Name:    "linux",
		Kernel:  os.Getenv("MICROVM_GUEST_KERNEL"),
		Initrd:  os.Getenv("MICROVM_GUEST_INITRD"),
		Cmdline: "console=ttyS0 " + job,
		CPUs:    cpus,
		Memory:  256 << 20,
	}
	if config.Kernel == "" || config.Initrd == "" {
		t.Skip("MICROVM_GUEST_KERNEL and MICROVM_GUEST_INITRD are not set; run this test in the lab: make lab")
	}
	return config
}

// good fails the test if the guest has complained of anything.
func good(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		for _, complaint := range []string{"SUM BAD", "FILL BAD", "UPTIME BAD", "DMESG BAD"} {
			if strings.HasPrefix(line, complaint) {
				t.Error(strings.TrimSpace(line))
			}
		}
	}
}

func TestLinuxBootsTakesInputAndPowersOff(t *testing.T) {
	for _, cpus := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d CPUs", cpus), func(t *testing.T) {
			out := newScreen()
			console := NewConsole(out)
			vm, err := New(t.Context(), linuxConfig(t, cpus, "mv.job=shell"), Options{Console: console})
			if err != nil {
				t.Fatal(err)
			}
			defer vm.Close()
			if err := vm.Start(); err != nil {
				t.Fatal(err)
			}
			out.wait(t, 1, fmt.Sprintf("GUEST READY cpus %d ", cpus))
			// Longer than the FIFO, and not to be mistaken for its echo.
			line := "echo the-answer-to-a-rather-long-question-is $((6 * 7))\n"
			if err := console.Type(t.Context(), []byte(line)); err != nil {
				t.Fatal(err)
			}
			out.wait(t, 1, "the-answer-to-a-rather-long-question-is 42")
			if err := console.Type(t.Context(), []byte("exit\n")); err != nil {
				t.Fatal(err)
			}
			if err := ended(t, vm); err != nil {
				t.Errorf("%v; the guest printed:\n%s", err, out)
			}
		})
	}
}

// The guest's watchdogs bark after some 20 s in which a CPU did nothing. One
// that was paused for longer is told so, and must not.
func TestLinuxIsNotAlarmedByAPause(t *testing.T) {
	vm, out := boot(t, linuxConfig(t, 2, "mv.job=checksum mv.size=8 mv.rounds=4"))
	out.wait(t, 1, "sum ok 1 ")
	if err := vm.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(25 * time.Second) // it is the time itself that is tested
	if err := vm.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := ended(t, vm); err != nil {
		t.Fatalf("%v; the guest printed:\n%s", err, out)
	}
	good(t, out.String())
	if lines(out.String(), "dmesg ok") != 1 {
		t.Errorf("the guest printed:\n%s", out)
	}
}

func TestLinuxGoesOnInAnotherVM(t *testing.T) {
	vm, out := boot(t, linuxConfig(t, 2, "mv.job=checksum mv.size=8 mv.rounds=8"))
	out.wait(t, 1, "sum ok 1 ")
	if err := errors.Join(vm.Depart(), vm.Pause(t.Context())); err != nil {
		t.Fatal(err)
	}
	there := newScreen()
	moved := moveInPlace(t, vm, Options{Console: NewConsole(there)})
	if err := vm.serial.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	vm.Stop()
	if err := errors.Join(moved.Run(), moved.Settle()); err != nil {
		t.Fatal(err)
	}
	if err := ended(t, moved); err != nil {
		t.Fatalf("%v; the guest printed:\n%s%s", err, out, there)
	}
	text := out.String() + there.String()
	good(t, text)
	if lines(text, "sum ok") != 8 || lines(text, "dmesg ok") != 1 {
		t.Errorf("the guest printed:\n%s", text)
	}
}
