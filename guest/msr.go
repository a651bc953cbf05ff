package guest

import "microvm/kvm"

// Model-specific registers that firmware sets and a kernel relies on; the
// numbers and bits are those of the Intel SDM, volume 4.
const (
	msrMiscEnable       = 0x1a0
	miscFastStrings     = 1 << 0
	msrMTRRDefType      = 0x2ff
	mtrrEnabled         = 1 << 11
	memoryTypeWriteBack = 6
)

// PowerOnMSRs is what firmware leaves in every CPU's model-specific registers.
// Without fast strings Linux on Intel gives up `rep movsb` for copying, and
// with memory-type range registers off it takes all memory for uncached and
// leaves the page attribute table alone.
func PowerOnMSRs() []kvm.MSR {
	return []kvm.MSR{
		{Index: msrMiscEnable, Value: miscFastStrings},
		{Index: msrMTRRDefType, Value: mtrrEnabled | memoryTypeWriteBack},
	}
}
