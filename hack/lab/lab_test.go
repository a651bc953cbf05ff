package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"microvm/hack/lab/labtest"
	"microvm/hack/lab/labvm"
)

// selftest is the one package whose tests are about the lab and not about the program.
const selftest = "microvm/hack/lab/selftest"

// commands is the package whose tests have guests under stress-ng.
const commands = "microvm/cmd/microvm"

// Every test with the tag linuxguest, wherever it is, each package in a lab of its own. Not two labs at a time: on two
// CPUs their guests are too slow then for what has a time limit in Linux.
func TestLinuxGuestsInTheLab(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine in software emulation; run without -short")
	}
	pieces := labtest.Pieces(t)
	packages, err := labtest.Discover("microvm/...")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages {
		t.Run(strings.TrimPrefix(p.Path, "microvm/"), func(t *testing.T) {
			labtest.Run(t, pieces, p.Path, labtest.Options{
				Tests:   p.Tests,
				Modules: []string{"veth", "sch_netem", "tun", "bridge"},
				Program: p.Path != selftest,
				Stress:  p.Path == commands,
			})
		})
	}
}

// The same tests that run natively, here on a KVM that is sure to have hardware virtualization under it.
func TestKVMTestsOnSVM(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine in software emulation; run without -short")
	}
	pieces := labtest.Pieces(t)
	for path, o := range map[string]labtest.Options{
		// Left out: what needs a compiler, and a clocksource that an emulated machine does not have.
		"kvm":     {Skip: []string{"TestHeader", "TestClockGoesOnByRealtime"}},
		"memslot": {Tests: []string{"TestSlotsAgainstKVM", "TestBlockIsMappedAsAsked"}},
		"guest":   {Tests: []string{"TestKVMTakesTheCPUIDOfEveryCPU"}},
		// On a kernel whose userfaultfd may hang in close.
		"migration":  {Tests: []string{"TestThePagerEndsWhileAFaultIsBeingMeasured"}},
		"guest/tiny": {Skip: []string{"TestCommittedKernelIsWhatItsSourceBuilds"}},
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel() // most of a lab's time is its boot, which keeps one CPU busy
			labtest.Run(t, pieces, "microvm/"+path, o)
		})
	}
}

func TestALabCommandsOutputAndStatusComeBack(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine in software emulation; run without -short")
	}
	pieces := labtest.Pieces(t)
	var stdout, stderr bytes.Buffer
	status, err := pieces.Run(t.Context(), labvm.Options{
		Command: []string{"sh", "-c", `cat; echo "$A" >&2; hostname; exit 7`},
		Env:     []string{"A=to stderr, with 'quotes' and $signs"},
		Stdin:   strings.NewReader("through stdin\n"),
		Stdout:  &stdout, Stderr: &stderr,
		Deadline: 2 * time.Minute,
	})
	if err != nil || status != 7 {
		t.Fatalf("status %d, error %v; want 7", status, err)
	}
	if got, want := stdout.String(), "through stdin\nlab\n"; got != want {
		t.Errorf("stdout %q, want %q", got, want)
	}
	if got, want := stderr.String(), "to stderr, with 'quotes' and $signs\n"; got != want {
		t.Errorf("stderr %q, want %q", got, want)
	}
}

func TestALabThatDoesNotComeUpIsBootedAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("needs what the lab is made of, which is fetched; run without -short")
	}
	pieces, dir := labtest.Pieces(t), t.TempDir()
	boots := filepath.Join(dir, "boots")
	script := "#!/bin/sh\necho >> " + boots + "\nexec sleep 1000\n"
	if err := os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	var stderr bytes.Buffer
	_, err := pieces.Run(t.Context(), labvm.Options{Command: []string{"true"}, Stderr: &stderr, BootTime: time.Second})
	if err == nil || !strings.Contains(err.Error(), "not up in time") || strings.Count(stderr.String(), "booted again") != 2 {
		t.Errorf("%v\n%s", err, stderr.String())
	}
	if text, err := os.ReadFile(boots); err != nil || len(text) != 3 {
		t.Errorf("booted %d times, %v", len(text), err)
	}
}

func TestALabCommandThatHangsIsEndedAtItsDeadline(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine in software emulation; run without -short")
	}
	status, err := labtest.Pieces(t).Run(t.Context(), labvm.Options{
		Command:  []string{"sleep", "1000000"},
		Deadline: 3 * time.Second,
	})
	if err != nil || status != labvm.StatusDeadline {
		t.Fatalf("status %d, error %v; want %d", status, err, labvm.StatusDeadline)
	}
}
