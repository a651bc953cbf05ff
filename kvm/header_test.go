package kvm

import (
	_ "embed"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// requests are all that request_unsafe.go defines.
var requests = []request{
	getAPIVersion, createVM, getMSRIndexList, checkExtension, getVCPUMmapSize, getSupportedCPUID,
	createVCPU, getDirtyLog, setUserMemoryRegion, setTSSAddr, setIdentityMapAddr, createIRQChip, irqLine,
	getIRQChip, setIRQChip, registerCoalesced, setGSIRouting, assignIRQFD, createPIT2, assignIOEventFD, setClock, getClock,
	getPIT2, setPIT2, enableCap, signalMSI, clearDirtyLog,
	runVCPU, getRegs, setRegs, getSregs, setSregs, translate, getMSRs, setMSRs, getLAPIC, setLAPIC,
	setCPUID2, getCPUID2, getMPState, setMPState, getVCPUEvents, setVCPUEvents, getDebugRegs, setDebugRegs,
	setTSCKHz, getTSCKHz, getXSave, setXSave, getXCRs, setXCRs, kvmclockCtrl, getSregs2, setSregs2, getXSave2,
	setDeviceAttr, getDeviceAttr, hasDeviceAttr,
}

// constants are the other numbers that we have written down, by their C expression.
var constants = map[string]uint64{
	"KVM_API_VERSION":                   apiVersion,
	"KVM_MEM_READONLY":                  MemReadonly,
	"KVM_IRQCHIP_IOAPIC":                ChipIOAPIC,
	"KVM_CAP_COALESCED_MMIO":            uint64(CapCoalescedMMIO),
	"KVM_CAP_IMMEDIATE_EXIT":            uint64(CapImmediateExit),
	"KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2": uint64(CapManualDirtyLogProtect2),
	"KVM_CAP_SREGS2":                    uint64(CapSregs2),
	"KVM_CAP_XSAVE2":                    uint64(CapXSave2),
	"KVM_CAP_SIGNAL_MSI":                uint64(CapSignalMSI),
	"KVM_CAP_ADJUST_CLOCK":              uint64(CapAdjustClock),
	"KVM_CAP_TSC_CONTROL":               uint64(CapTSCControl),
	"KVM_CAP_GET_TSC_KHZ":               uint64(CapGetTSCKHz),
	"KVM_CAP_PIT_STATE2":                uint64(CapPITState2),
	"KVM_CAP_XCRS":                      uint64(CapXCRs),
	"KVM_CAP_MAX_VCPUS":                 uint64(CapMaxVCPUs),
	"KVM_CAP_NR_MEMSLOTS":               uint64(CapNRMemSlots),
	"KVM_CAP_IOEVENTFD":                 uint64(CapIOEventFD),
	"KVM_CAP_IRQFD":                     uint64(CapIRQFD),
	"KVM_CAP_KVMCLOCK_CTRL":             uint64(CapKVMClockCtrl),
	"KVM_EXIT_IO":                       uint64(ExitIO),
	"KVM_EXIT_MMIO":                     uint64(ExitMMIO),
	"KVM_EXIT_SHUTDOWN":                 uint64(ExitShutdown),
	"KVM_EXIT_INTERNAL_ERROR":           uint64(ExitInternalError),
	"KVM_EXIT_SYSTEM_EVENT":             uint64(ExitSystemEvent),
	"KVM_MP_STATE_SIPI_RECEIVED":        uint64(MPStateSIPIReceived),
	"KVM_CPUID_FLAG_SIGNIFCANT_INDEX":   CPUIDSignificantIndex,
	"KVM_VCPU_TSC_CTRL":                 vcpuTSCCtrl,
	"KVM_VCPU_TSC_OFFSET":               vcpuTSCOffset,
	"sizeof(struct kvm_irq_routing)":    sizeofListHeader,
	"sizeof(struct kvm_msr_list)":       sizeofMSRListHeader,
	"sizeof(struct kvm_xsave)":          minXSaveSize,

	"sizeof(struct kvm_irq_routing_entry)":             routeSize,
	"offsetof(struct kvm_irq_routing_entry, u)":        16,
	"offsetof(struct kvm_irq_routing_msi, data)":       8,
	"offsetof(struct kvm_run, immediate_exit)":         1,
	"offsetof(struct kvm_run, exit_reason)":            offExitReason,
	"offsetof(struct kvm_run, io.direction)":           offIODirection,
	"offsetof(struct kvm_run, io.size)":                offIOSize,
	"offsetof(struct kvm_run, io.port)":                offIOPort,
	"offsetof(struct kvm_run, io.count)":               offIOCount,
	"offsetof(struct kvm_run, io.data_offset)":         offIODataOffset,
	"offsetof(struct kvm_run, mmio.phys_addr)":         offMMIOAddr,
	"offsetof(struct kvm_run, mmio.data)":              offMMIOData,
	"offsetof(struct kvm_run, mmio.len)":               offMMIOLen,
	"offsetof(struct kvm_run, mmio.is_write)":          offMMIOWrite,
	"offsetof(struct kvm_run, fail_entry.cpu)":         offFailCPU,
	"offsetof(struct kvm_run, internal.suberror)":      offNumber,
	"offsetof(struct kvm_run, internal.ndata)":         offNData,
	"offsetof(struct kvm_run, internal.data)":          offData,
	"offsetof(struct kvm_run, system_event.ndata)":     offNData,
	"offsetof(struct kvm_run, system_event.data)":      offData,
	"offsetof(struct kvm_run, fail_entry)":             offFailReason,
	"offsetof(struct kvm_clear_dirty_log, first_page)": 8,

	"offsetof(struct kvm_coalesced_mmio, data)":                16,
	"offsetof(struct kvm_coalesced_mmio_ring, coalesced_mmio)": 8,
}

// TestHeader compiles a program against the kernel's header and compares what it
// prints with this package's ioctl numbers, structure sizes and offsets.
func TestHeader(t *testing.T) {
	want := maps.Clone(constants)
	for name, size := range structSizes {
		want["sizeof(struct "+name+")"] = size
	}
	for _, r := range requests {
		want[r.name] = uint64(r.nr)
	}
	got := evaluate(t, slices.Sorted(maps.Keys(want)))
	for expr, w := range want {
		if g := got[expr]; g != w {
			t.Errorf("%s: the header says %#x, this package %#x", expr, g, w)
		}
	}
}

//go:embed request_unsafe.go
var requestSource string

// TestEveryRequestIsChecked sees that no request was added without TestHeader.
func TestEveryRequestIsChecked(t *testing.T) {
	for _, m := range regexp.MustCompile(`request\{"(\w+)"`).FindAllStringSubmatch(requestSource, -1) {
		if !slices.ContainsFunc(requests, func(r request) bool { return r.name == m[1] }) {
			t.Errorf("%s is not in requests", m[1])
		}
	}
}

// evaluate has the C compiler work out expressions.
func evaluate(t *testing.T, exprs []string) map[string]uint64 {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("this test needs a C compiler named cc (apt-get install gcc)")
	}
	if _, err := os.Stat("/usr/include/linux/kvm.h"); err != nil {
		t.Skip("this test needs linux/kvm.h (apt-get install linux-libc-dev)")
	}
	var src strings.Builder
	src.WriteString("#include <stddef.h>\n#include <stdio.h>\n#include <linux/kvm.h>\nint main(void) {\n")
	for _, e := range exprs {
		fmt.Fprintf(&src, "printf(\"%%llu %s\\n\", (unsigned long long)(%s));\n", e, e)
	}
	src.WriteString("}\n")
	dir := t.TempDir()
	file, bin := filepath.Join(dir, "kvm.c"), filepath.Join(dir, "kvm")
	must(t, os.WriteFile(file, []byte(src.String()), 0o600))
	if out, err := exec.Command(cc, "-o", bin, file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(bin).Output()
	must(t, err)

	values := make(map[string]uint64)
	for line := range strings.Lines(string(out)) {
		var v uint64
		number, expr, _ := strings.Cut(strings.TrimSpace(line), " ")
		if _, err := fmt.Sscan(number, &v); err != nil {
			t.Fatal(err)
		}
		values[expr] = v
	}
	return values
}
