//go:build linuxguest

package selftest

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// kvmGetAPIVersion is KVM_GET_API_VERSION, _IO(KVMIO, 0) in linux/kvm.h.
const kvmGetAPIVersion = 0xAE00

func TestKVMOpensWithAPI12(t *testing.T) {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	version, err := unix.IoctlRetInt(int(f.Fd()), kvmGetAPIVersion)
	if err != nil || version != 12 {
		t.Fatalf("KVM_GET_API_VERSION: %d, %v; want 12", version, err)
	}
}

func TestHardwareVirtualizationIsThere(t *testing.T) {
	modules, err := os.ReadFile("/proc/modules")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(modules), "kvm_amd ") && !strings.Contains(string(modules), "kvm_intel ") {
		t.Fatalf("neither kvm_amd nor kvm_intel is loaded:\n%s", modules)
	}
}

func TestGuestPartsAreThere(t *testing.T) {
	for _, variable := range []string{"MICROVM_GUEST_KERNEL", "MICROVM_GUEST_INITRD"} {
		path := os.Getenv(variable)
		if info, err := os.Stat(path); err != nil || info.Size() < 1<<20 {
			t.Errorf("%s=%q: no such file, or too small to be one (%v)", variable, path, err)
		}
	}
}
