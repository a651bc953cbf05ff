package kvm

import (
	"unsafe"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
)

// A request is an ioctl: its number and, for errors, its name in linux/kvm.h.
type request struct {
	name string
	nr   uintptr
}

// The requests this package makes, as linux/kvm.h defines them. TestHeader
// compares each with the header by its name.
var (
	// On /dev/kvm.
	getAPIVersion     = define("KVM_GET_API_VERSION", gokvm.IIO(0x00))
	createVM          = define("KVM_CREATE_VM", gokvm.IIO(0x01))
	getMSRIndexList   = define("KVM_GET_MSR_INDEX_LIST", gokvm.IIOWR(0x02, sizeofMSRListHeader))
	checkExtension    = define("KVM_CHECK_EXTENSION", gokvm.IIO(0x03))
	getVCPUMmapSize   = define("KVM_GET_VCPU_MMAP_SIZE", gokvm.IIO(0x04))
	getSupportedCPUID = define("KVM_GET_SUPPORTED_CPUID", gokvm.IIOWR(0x05, sizeofListHeader))

	// On a VM.
	createVCPU          = define("KVM_CREATE_VCPU", gokvm.IIO(0x41))
	getDirtyLog         = define("KVM_GET_DIRTY_LOG", gokvm.IIOW(0x42, unsafe.Sizeof(dirtyLog{})))
	setUserMemoryRegion = define("KVM_SET_USER_MEMORY_REGION", gokvm.IIOW(0x46, unsafe.Sizeof(MemoryRegion{})))
	setTSSAddr          = define("KVM_SET_TSS_ADDR", gokvm.IIO(0x47))
	setIdentityMapAddr  = define("KVM_SET_IDENTITY_MAP_ADDR", gokvm.IIOW(0x48, 8))
	createIRQChip       = define("KVM_CREATE_IRQCHIP", gokvm.IIO(0x60))
	irqLine             = define("KVM_IRQ_LINE", gokvm.IIOW(0x61, unsafe.Sizeof(irqLevel{})))
	getIRQChip          = define("KVM_GET_IRQCHIP", gokvm.IIOWR(0x62, unsafe.Sizeof(gokvm.IRQChip{})))
	setIRQChip          = define("KVM_SET_IRQCHIP", gokvm.IIOR(0x63, unsafe.Sizeof(gokvm.IRQChip{})))
	registerCoalesced   = define("KVM_REGISTER_COALESCED_MMIO", gokvm.IIOW(0x67, unsafe.Sizeof(coalescedZone{})))
	setGSIRouting       = define("KVM_SET_GSI_ROUTING", gokvm.IIOW(0x6a, sizeofListHeader))
	assignIRQFD         = define("KVM_IRQFD", gokvm.IIOW(0x76, unsafe.Sizeof(irqfd{})))
	createPIT2          = define("KVM_CREATE_PIT2", gokvm.IIOW(0x77, unsafe.Sizeof(pitConfig{})))
	assignIOEventFD     = define("KVM_IOEVENTFD", gokvm.IIOW(0x79, unsafe.Sizeof(ioeventfd{})))
	setClock            = define("KVM_SET_CLOCK", gokvm.IIOW(0x7b, unsafe.Sizeof(gokvm.ClockData{})))
	getClock            = define("KVM_GET_CLOCK", gokvm.IIOR(0x7c, unsafe.Sizeof(gokvm.ClockData{})))
	getPIT2             = define("KVM_GET_PIT2", gokvm.IIOR(0x9f, unsafe.Sizeof(gokvm.PITState2{})))
	setPIT2             = define("KVM_SET_PIT2", gokvm.IIOW(0xa0, unsafe.Sizeof(gokvm.PITState2{})))
	enableCap           = define("KVM_ENABLE_CAP", gokvm.IIOW(0xa3, unsafe.Sizeof(enableCapArgs{})))
	signalMSI           = define("KVM_SIGNAL_MSI", gokvm.IIOW(0xa5, unsafe.Sizeof(msiArgs{})))
	clearDirtyLog       = define("KVM_CLEAR_DIRTY_LOG", gokvm.IIOWR(0xc0, unsafe.Sizeof(clearDirtyLogArgs{})))

	// On a vCPU.
	runVCPU       = define("KVM_RUN", gokvm.IIO(0x80))
	getRegs       = define("KVM_GET_REGS", gokvm.IIOR(0x81, unsafe.Sizeof(Regs{})))
	setRegs       = define("KVM_SET_REGS", gokvm.IIOW(0x82, unsafe.Sizeof(Regs{})))
	getSregs      = define("KVM_GET_SREGS", gokvm.IIOR(0x83, unsafe.Sizeof(Sregs{})))
	setSregs      = define("KVM_SET_SREGS", gokvm.IIOW(0x84, unsafe.Sizeof(Sregs{})))
	translate     = define("KVM_TRANSLATE", gokvm.IIOWR(0x85, unsafe.Sizeof(gokvm.Translation{})))
	getMSRs       = define("KVM_GET_MSRS", gokvm.IIOWR(0x88, sizeofListHeader))
	setMSRs       = define("KVM_SET_MSRS", gokvm.IIOW(0x89, sizeofListHeader))
	getLAPIC      = define("KVM_GET_LAPIC", gokvm.IIOR(0x8e, unsafe.Sizeof(gokvm.LAPICState{})))
	setLAPIC      = define("KVM_SET_LAPIC", gokvm.IIOW(0x8f, unsafe.Sizeof(gokvm.LAPICState{})))
	setCPUID2     = define("KVM_SET_CPUID2", gokvm.IIOW(0x90, sizeofListHeader))
	getCPUID2     = define("KVM_GET_CPUID2", gokvm.IIOWR(0x91, sizeofListHeader))
	getMPState    = define("KVM_GET_MP_STATE", gokvm.IIOR(0x98, unsafe.Sizeof(MPState(0))))
	setMPState    = define("KVM_SET_MP_STATE", gokvm.IIOW(0x99, unsafe.Sizeof(MPState(0))))
	getVCPUEvents = define("KVM_GET_VCPU_EVENTS", gokvm.IIOR(0x9f, unsafe.Sizeof(gokvm.VCPUEvents{})))
	setVCPUEvents = define("KVM_SET_VCPU_EVENTS", gokvm.IIOW(0xa0, unsafe.Sizeof(gokvm.VCPUEvents{})))
	getDebugRegs  = define("KVM_GET_DEBUGREGS", gokvm.IIOR(0xa1, unsafe.Sizeof(gokvm.DebugRegs{})))
	setDebugRegs  = define("KVM_SET_DEBUGREGS", gokvm.IIOW(0xa2, unsafe.Sizeof(gokvm.DebugRegs{})))
	setTSCKHz     = define("KVM_SET_TSC_KHZ", gokvm.IIO(0xa2))
	getTSCKHz     = define("KVM_GET_TSC_KHZ", gokvm.IIO(0xa3))
	getXSave      = define("KVM_GET_XSAVE", gokvm.IIOR(0xa4, minXSaveSize))
	setXSave      = define("KVM_SET_XSAVE", gokvm.IIOW(0xa5, minXSaveSize))
	getXCRs       = define("KVM_GET_XCRS", gokvm.IIOR(0xa6, unsafe.Sizeof(gokvm.XCRS{})))
	setXCRs       = define("KVM_SET_XCRS", gokvm.IIOW(0xa7, unsafe.Sizeof(gokvm.XCRS{})))
	kvmclockCtrl  = define("KVM_KVMCLOCK_CTRL", gokvm.IIO(0xad))
	getSregs2     = define("KVM_GET_SREGS2", gokvm.IIOR(0xcc, unsafe.Sizeof(gokvm.SRegs2{})))
	setSregs2     = define("KVM_SET_SREGS2", gokvm.IIOW(0xcd, unsafe.Sizeof(gokvm.SRegs2{})))
	getXSave2     = define("KVM_GET_XSAVE2", gokvm.IIOR(0xcf, minXSaveSize))
	setDeviceAttr = define("KVM_SET_DEVICE_ATTR", gokvm.IIOW(0xe1, unsafe.Sizeof(deviceAttr{})))
	getDeviceAttr = define("KVM_GET_DEVICE_ATTR", gokvm.IIOW(0xe2, unsafe.Sizeof(deviceAttr{})))
	hasDeviceAttr = define("KVM_HAS_DEVICE_ATTR", gokvm.IIOW(0xe3, unsafe.Sizeof(deviceAttr{})))
)

// What the encoders take for structures that end in a flexible array.
const (
	sizeofMSRListHeader = 4    // struct kvm_msr_list
	sizeofListHeader    = 8    // struct kvm_cpuid2, kvm_msrs, kvm_irq_routing
	minXSaveSize        = 4096 // struct kvm_xsave
)
