package kvm

import gokvm "github.com/bobuhiro11/gokvm/kvm"

// Cap is a KVM_CAP_* number of linux/kvm.h: something a kernel may or may not
// offer, and often a number that goes with it. Any value may be asked for.
type Cap uint32

// The capabilities that this project asks for.
const (
	CapIRQChip                = Cap(gokvm.CapIRQChip)
	CapCoalescedMMIO          = Cap(gokvm.CapCoalescedMMIO)
	CapUserMemory             = Cap(gokvm.CapUserMemory)
	CapSetTSSAddr             = Cap(gokvm.CapSetTSSAddr)
	CapExtCPUID               = Cap(gokvm.CapEXTCPUID)
	CapNRMemSlots             = Cap(gokvm.CapNRMemSlots)
	CapMPState                = Cap(gokvm.CapMPState)
	CapDestroyMemoryRegion    = Cap(gokvm.CapDestroyMemoryRegionWorks)
	CapIRQRouting             = Cap(gokvm.CapIRQRouting)
	CapIRQFD                  = Cap(gokvm.CapIRQFD)
	CapPIT2                   = Cap(gokvm.CapPIT2)
	CapPITState2              = Cap(gokvm.CapPITState2)
	CapIOEventFD              = Cap(gokvm.CapIOEventFD)
	CapSetIdentityMapAddr     = Cap(gokvm.CapSetIdentityMapAddr)
	CapAdjustClock            = Cap(gokvm.CapAdjustClock)
	CapVCPUEvents             = Cap(gokvm.CapVCPUEvents)
	CapDebugRegs              = Cap(gokvm.CapDebugRegs)
	CapXSave                  = Cap(gokvm.CapXSave)
	CapXCRs                   = Cap(gokvm.CapXCRS)
	CapTSCControl             = Cap(gokvm.CapTSCControl)
	CapGetTSCKHz              = Cap(gokvm.CapGetTSCkHz)
	CapMaxVCPUs               = Cap(gokvm.CapMAXVCPUS)
	CapTSCDeadlineTimer       = Cap(gokvm.CapTSCDeadlineTimer)
	CapKVMClockCtrl           = Cap(gokvm.CapKVMClockCtrl)
	CapSignalMSI              = Cap(gokvm.CapSignalMSI)
	CapImmediateExit          = Cap(gokvm.CapImmediateExit)
	CapManualDirtyLogProtect2 = Cap(gokvm.CapManualDirtyLogProtect2)
	CapSregs2                 = Cap(gokvm.CapSREGS2)
	CapXSave2                 = Cap(gokvm.CapXSave2)
)

// required is what nothing in this package works without. The newest of them
// is KVM_CAP_IMMEDIATE_EXIT, of Linux 4.11.
var required = []Cap{
	CapIRQChip, CapUserMemory, CapSetTSSAddr, CapExtCPUID, CapMPState, CapDestroyMemoryRegion,
	CapIRQRouting, CapIRQFD, CapPIT2, CapPITState2, CapIOEventFD, CapSetIdentityMapAddr,
	CapAdjustClock, CapVCPUEvents, CapDebugRegs, CapXSave, CapXCRs, CapGetTSCKHz,
	CapKVMClockCtrl, CapSignalMSI, CapImmediateExit,
}
