package confine

import (
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkKVMRun has the benchmark's process make KVM_RUN's system call, on no
// vCPU: what is left of an exit is the filter, and the way in and out. The filter
// is for good, so the benchmark without it comes first.
func BenchmarkKVMRun(b *testing.B) {
	request := uintptr(requests()[0])
	loop := func(b *testing.B) {
		for b.Loop() {
			_, _, _ = unix.Syscall(unix.SYS_IOCTL, ^uintptr(0), request, 0)
		}
	}
	b.Run("plain", loop)
	if _, err := Apply(Options{Seccomp: SeccompKill}); err != nil {
		b.Fatal(err)
	}
	b.Run("confined", loop)
}
