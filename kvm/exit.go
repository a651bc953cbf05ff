package kvm

import (
	"fmt"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
)

// ExitReason says why KVM_RUN came back: KVM_EXIT_* of linux/kvm.h.
type ExitReason uint32

// The exits that a run loop on x86 has to tell apart.
const (
	ExitUnknown       = ExitReason(gokvm.EXITUNKNOWN)
	ExitIO            = ExitReason(gokvm.EXITIO)   // see VCPU.IO
	ExitHLT           = ExitReason(gokvm.EXITHLT)  // only without CreateIRQChip
	ExitMMIO          = ExitReason(gokvm.EXITMMIO) // see VCPU.MMIO
	ExitShutdown      = ExitReason(gokvm.EXITSHUTDOWN)
	ExitFailEntry     = ExitReason(gokvm.EXITFAILENTRY)     // see VCPU.FailEntry
	ExitIntr          = ExitReason(gokvm.EXITINTR)          // Run's error is EINTR
	ExitInternalError = ExitReason(gokvm.EXITINTERNALERROR) // see VCPU.InternalError
	ExitSystemEvent   = ExitReason(24)                      // see VCPU.SystemEvent
)

var exitNames = map[ExitReason]string{
	ExitUnknown:       "UNKNOWN",
	1:                 "EXCEPTION",
	ExitIO:            "IO",
	3:                 "HYPERCALL",
	4:                 "DEBUG",
	ExitHLT:           "HLT",
	ExitMMIO:          "MMIO",
	7:                 "IRQ_WINDOW_OPEN",
	ExitShutdown:      "SHUTDOWN",
	ExitFailEntry:     "FAIL_ENTRY",
	ExitIntr:          "INTR",
	11:                "SET_TPR",
	12:                "TPR_ACCESS",
	16:                "NMI",
	ExitInternalError: "INTERNAL_ERROR",
	ExitSystemEvent:   "SYSTEM_EVENT",
	26:                "IOAPIC_EOI",
	27:                "HYPERV",
	29:                "X86_RDMSR",
	30:                "X86_WRMSR",
	31:                "DIRTY_RING_FULL",
	32:                "AP_RESET_HOLD",
	33:                "X86_BUS_LOCK",
	34:                "XEN",
	37:                "NOTIFY",
	39:                "MEMORY_FAULT",
}

// String gives the header's name without its prefix: "MMIO".
func (r ExitReason) String() string {
	if s, ok := exitNames[r]; ok {
		return s
	}
	return fmt.Sprintf("exit reason %d", uint32(r))
}
