//go:build linuxguest

package selftest

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoGuestRunsOnTheFirstCPU: the emulator breaks SVM there (leaveFirstCPU in hack/lab/init).
func TestNoGuestRunsOnTheFirstCPU(t *testing.T) {
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		t.Fatal(err)
	}
	if cpus.IsSet(0) || cpus.Count() < 2 {
		t.Errorf("the command may run on %d CPUs, CPU 0 among them: %v; want at least 2 without it", cpus.Count(), cpus.IsSet(0))
	}
}
