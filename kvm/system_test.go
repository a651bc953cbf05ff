package kvm

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenErrorsNameTheRemedy(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "kvm")
	if _, err := openDevice(missing); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "modprobe") {
		t.Errorf("no device: %v", err)
	}
	if _, err := openDevice(os.DevNull); !errors.Is(err, unix.ENOTTY) || !strings.Contains(err.Error(), "KVM_GET_API_VERSION") {
		t.Errorf("another device: %v", err)
	}
}

func TestSystemLists(t *testing.T) {
	s := open(t)
	cpuid, err := s.SupportedCPUID()
	must(t, err)
	hasKVM := func(e CPUIDEntry) bool { return e.Function == 0x40000000 && e.Ebx == 0x4b4d564b } // "KVMK"
	if !slices.ContainsFunc(cpuid, hasKVM) {
		t.Error("SupportedCPUID has no KVM signature leaf")
	}
	indices, err := s.MSRIndices()
	must(t, err)
	if !slices.Contains(indices, msrLSTAR) || slices.Contains(indices, 0) {
		t.Errorf("MSRIndices: %#x", indices)
	}
}

func TestErrorsSayWhatItWasAbout(t *testing.T) {
	g := newGuest(t, open(t), true, nil)
	_, vcpuErr := g.CreateVCPU(0)
	for _, c := range []struct {
		err   error
		errno error
		want  string
	}{
		{g.SetUserMemoryRegion(MemoryRegion{Slot: 3, GPA: 0x1000, Size: 0x1000, HVA: hva(g.mem)}), unix.EEXIST,
			"memslot 3 [0x1000, +0x1000) flags 0x0: KVM_SET_USER_MEMORY_REGION: file exists"},
		{vcpuErr, unix.EEXIST, "vCPU 0: KVM_CREATE_VCPU: file exists"},
		{g.cpu.SetMPState(99), unix.EINVAL, "vCPU 0: KVM_SET_MP_STATE: invalid argument"},
		{g.EnableCap(CapNRMemSlots, 1), unix.EINVAL, "KVM_ENABLE_CAP"},
		{g.AssignIRQFD(-1, 5), unix.EBADF, "eventfd -1 for GSI 5: KVM_IRQFD"},
		{g.AssignIOEventFD(IOEventFD{Addr: 0x90, Size: 3, FD: 0, PIO: true}), unix.EINVAL, "port 0x90 size 3: KVM_IOEVENTFD"},
		{g.SetGSIRouting([]GSIRoute{{Chip: 9}}), unix.EINVAL, "KVM_SET_GSI_ROUTING"},
	} {
		if !errors.Is(c.err, c.errno) || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("got %v, want ...%s...", c.err, c.want)
		}
	}
	if err := g.EnableCap(CapNRMemSlots, 1, 2, 3, 4, 5); err == nil || !strings.Contains(err.Error(), "takes 4 arguments") {
		t.Errorf("five arguments: %v", err)
	}
	if err := g.cpu.SetCPUID(make([]CPUIDEntry, maxCPUIDEntries+1)); err == nil {
		t.Error("too many CPUID entries: no error")
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{ExitMMIO.String(), "MMIO"},
		{ExitReason(77).String(), "exit reason 77"},
		{CapXSave2.String(), "KVM_CAP_XSAVE2"},
		{Cap(1000).String(), "KVM capability 1000"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestKVMClockCtrlWithoutKVMClock(t *testing.T) {
	g := newGuest(t, open(t), true, nil)
	must(t, g.cpu.KVMClockCtrl()) // nobody to tell is no error
	must(t, g.cpu.writeMSRs([]MSR{{Index: 0x4b564d01, Value: 0x7001}}))
	must(t, g.cpu.KVMClockCtrl())
}
