package kvm

import "fmt"

// capNames are the names in linux/kvm.h of the capabilities that this project
// asks for.
var capNames = map[Cap]string{
	CapIRQChip:                "KVM_CAP_IRQCHIP",
	CapUserMemory:             "KVM_CAP_USER_MEMORY",
	CapSetTSSAddr:             "KVM_CAP_SET_TSS_ADDR",
	CapExtCPUID:               "KVM_CAP_EXT_CPUID",
	CapNRMemSlots:             "KVM_CAP_NR_MEMSLOTS",
	CapMPState:                "KVM_CAP_MP_STATE",
	CapDestroyMemoryRegion:    "KVM_CAP_DESTROY_MEMORY_REGION_WORKS",
	CapIRQRouting:             "KVM_CAP_IRQ_ROUTING",
	CapIRQFD:                  "KVM_CAP_IRQFD",
	CapPIT2:                   "KVM_CAP_PIT2",
	CapPITState2:              "KVM_CAP_PIT_STATE2",
	CapIOEventFD:              "KVM_CAP_IOEVENTFD",
	CapSetIdentityMapAddr:     "KVM_CAP_SET_IDENTITY_MAP_ADDR",
	CapAdjustClock:            "KVM_CAP_ADJUST_CLOCK",
	CapVCPUEvents:             "KVM_CAP_VCPU_EVENTS",
	CapDebugRegs:              "KVM_CAP_DEBUGREGS",
	CapXSave:                  "KVM_CAP_XSAVE",
	CapXCRs:                   "KVM_CAP_XCRS",
	CapTSCControl:             "KVM_CAP_TSC_CONTROL",
	CapGetTSCKHz:              "KVM_CAP_GET_TSC_KHZ",
	CapMaxVCPUs:               "KVM_CAP_MAX_VCPUS",
	CapTSCDeadlineTimer:       "KVM_CAP_TSC_DEADLINE_TIMER",
	CapKVMClockCtrl:           "KVM_CAP_KVMCLOCK_CTRL",
	CapCoalescedMMIO:          "KVM_CAP_COALESCED_MMIO",
	CapSignalMSI:              "KVM_CAP_SIGNAL_MSI",
	CapImmediateExit:          "KVM_CAP_IMMEDIATE_EXIT",
	CapManualDirtyLogProtect2: "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2",
	CapSregs2:                 "KVM_CAP_SREGS2",
	CapXSave2:                 "KVM_CAP_XSAVE2",
}

// String gives the capability's name, or its number.
func (c Cap) String() string {
	if name, ok := capNames[c]; ok {
		return name
	}
	return fmt.Sprintf("KVM capability %d", uint32(c))
}
