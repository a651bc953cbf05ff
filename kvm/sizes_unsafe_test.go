package kvm

import (
	"unsafe"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
)

// structSizes are the structures that go to the kernel, by their C name.
var structSizes = map[string]uint64{
	"kvm_userspace_memory_region": uint64(unsafe.Sizeof(MemoryRegion{})),
	"kvm_dirty_log":               uint64(unsafe.Sizeof(dirtyLog{})),
	"kvm_clear_dirty_log":         uint64(unsafe.Sizeof(clearDirtyLogArgs{})),
	"kvm_enable_cap":              uint64(unsafe.Sizeof(enableCapArgs{})),
	"kvm_irq_level":               uint64(unsafe.Sizeof(irqLevel{})),
	"kvm_irqfd":                   uint64(unsafe.Sizeof(irqfd{})),
	"kvm_ioeventfd":               uint64(unsafe.Sizeof(ioeventfd{})),
	"kvm_coalesced_mmio_zone":     uint64(unsafe.Sizeof(coalescedZone{})),
	"kvm_coalesced_mmio":          uint64(unsafe.Sizeof(coalescedWrite{})),
	"kvm_msi":                     uint64(unsafe.Sizeof(msiArgs{})),
	"kvm_pit_config":              uint64(unsafe.Sizeof(pitConfig{})),
	"kvm_device_attr":             uint64(unsafe.Sizeof(deviceAttr{})),
	"kvm_irqchip":                 uint64(unsafe.Sizeof(IRQChip{})),
	"kvm_pit_state2":              uint64(unsafe.Sizeof(PITState{})),
	"kvm_clock_data":              uint64(unsafe.Sizeof(ClockData{})),
	"kvm_regs":                    uint64(unsafe.Sizeof(Regs{})),
	"kvm_sregs":                   uint64(unsafe.Sizeof(Sregs{})),
	"kvm_sregs2":                  uint64(unsafe.Sizeof(Sregs2{})),
	"kvm_segment":                 uint64(unsafe.Sizeof(Segment{})),
	"kvm_dtable":                  uint64(unsafe.Sizeof(Descriptor{})),
	"kvm_translation":             uint64(unsafe.Sizeof(gokvm.Translation{})),
	"kvm_cpuid_entry2":            uint64(unsafe.Sizeof(CPUIDEntry{})),
	"kvm_cpuid2":                  uint64(unsafe.Sizeof(cpuid2{}) - maxCPUIDEntries*unsafe.Sizeof(CPUIDEntry{})),
	"kvm_msr_entry":               uint64(unsafe.Sizeof(MSR{})),
	"kvm_msrs":                    uint64(unsafe.Sizeof(msrs{}) - msrBatch*unsafe.Sizeof(MSR{})),
	"kvm_lapic_state":             uint64(unsafe.Sizeof(LAPICState{})),
	"kvm_mp_state":                uint64(unsafe.Sizeof(MPState(0))),
	"kvm_vcpu_events":             uint64(unsafe.Sizeof(VCPUEvents{})),
	"kvm_debugregs":               uint64(unsafe.Sizeof(DebugRegs{})),
	"kvm_xcrs":                    uint64(unsafe.Sizeof(XCRs{})),
}
