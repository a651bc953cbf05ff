package kvm

import gokvm "github.com/bobuhiro11/gokvm/kvm"

// Structures of asm/kvm.h that gokvm mirrors right; TestHeader holds their
// sizes against the header.
type (
	Regs       = gokvm.Regs        // struct kvm_regs
	Sregs      = gokvm.Sregs       // struct kvm_sregs
	Sregs2     = gokvm.SRegs2      // struct kvm_sregs2
	Segment    = gokvm.Segment     // struct kvm_segment
	Descriptor = gokvm.Descriptor  // struct kvm_dtable
	CPUIDEntry = gokvm.CPUIDEntry2 // struct kvm_cpuid_entry2
	VCPUEvents = gokvm.VCPUEvents  // struct kvm_vcpu_events
	DebugRegs  = gokvm.DebugRegs   // struct kvm_debugregs
	XCRs       = gokvm.XCRS        // struct kvm_xcrs
	LAPICState = gokvm.LAPICState  // struct kvm_lapic_state
	IRQChip    = gokvm.IRQChip     // struct kvm_irqchip
	PITState   = gokvm.PITState2   // struct kvm_pit_state2
	ClockData  = gokvm.ClockData   // struct kvm_clock_data
)

// CPUIDSignificantIndex in CPUIDEntry.Flags says that Index (ECX) selects the
// entry, not Function (EAX) alone: KVM_CPUID_FLAG_SIGNIFCANT_INDEX.
const CPUIDSignificantIndex = 1 << 0

// MSR is a model-specific register and its value: struct kvm_msr_entry.
type MSR struct {
	Index uint32
	_     uint32
	Value uint64
}

// MPState is a vCPU's multiprocessing state: struct kvm_mp_state.
type MPState uint32

// The multiprocessing states of x86.
const (
	MPStateRunnable      = MPState(gokvm.MPStateRunnable)
	MPStateUninitialized = MPState(gokvm.MPStateUninitialized) // waits for INIT
	MPStateInitReceived  = MPState(gokvm.MPStateInitReceived)  // waits for SIPI
	MPStateHalted        = MPState(gokvm.MPStateHalted)        // HLT, waits for an interrupt
	MPStateSIPIReceived  = MPState(gokvm.MPStateSipiReceived)
)

// irqLevel is struct kvm_irq_level.
type irqLevel struct {
	gsi, level uint32
}

// irqfd is struct kvm_irqfd.
type irqfd struct {
	fd, gsi, flags uint32
	_              uint32 // resamplefd
	_              [16]byte
}

// pitConfig is struct kvm_pit_config.
type pitConfig struct {
	flags uint32
	_     [15]uint32
}

// ioeventfd is struct kvm_ioeventfd.
type ioeventfd struct {
	datamatch uint64
	addr      uint64
	len       uint32
	fd        int32
	flags     uint32
	_         [36]byte
}

// enableCapArgs is struct kvm_enable_cap.
type enableCapArgs struct {
	cap  uint32
	_    uint32 // flags, none defined
	args [4]uint64
	_    [64]byte
}

// msiArgs is struct kvm_msi.
type msiArgs struct {
	addressLo, addressHi, data uint32
	_                          [2]uint32 // flags, devid: not on x86
	_                          [12]byte
}

// maxCPUIDEntries is KVM's own limit, KVM_MAX_CPUID_ENTRIES (80 before 5.11).
const maxCPUIDEntries = 256

// cpuid2 is struct kvm_cpuid2 with room for all entries KVM can have.
type cpuid2 struct {
	nent, _ uint32
	entries [maxCPUIDEntries]CPUIDEntry
}

// msrBatch is how many MSRs go to the kernel in one call. KVM takes fewer than
// 256 (MAX_IO_MSRS).
const msrBatch = 128

// msrs is struct kvm_msrs with room for a batch.
type msrs struct {
	nmsrs, _ uint32
	entries  [msrBatch]MSR
}
