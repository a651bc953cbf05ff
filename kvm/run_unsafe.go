package kvm

import (
	"sync/atomic"
	"unsafe"
)

// SetImmediateExit tells KVM_RUN to complete the pending exit, if there is one,
// and to return EINTR before it enters the guest. Set before a signal is sent
// to the vCPU's thread, it closes the window in which the signal arrives just
// ahead of KVM_RUN. It stays until it is set to false. Any goroutine may call
// it, before Close.
func (v *VCPU) SetImmediateExit(on bool) {
	// immediate_exit is byte 1 of kvm_run. The other bytes of the word are
	// ours too (request_interrupt_window and padding), so a 32-bit atomic
	// operation is right.
	const immediateExit = 1 << 8
	word := (*uint32)(unsafe.Pointer(unsafe.SliceData(v.run)))
	if on {
		atomic.OrUint32(word, immediateExit)
	} else {
		atomic.AndUint32(word, ^uint32(immediateExit))
	}
}
