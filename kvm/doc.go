// Package kvm is the Linux virtualization interface, /dev/kvm, as typed Go: a
// [System] is the device, a [VM] one guest with its memory slots and interrupt
// controllers, a [VCPU] one virtual processor. It is thin (an exported method
// is one ioctl, or the few that only make sense together) and complete enough
// to save a vCPU and a VM on one host and to load them on another. x86-64 only.
//
//	System --CreateVM--> VM --CreateVCPU--> VCPU --Run--> exit: IO, MMIO, ...
//	                     |                   |
//	                     SaveState           SaveState
//	                     LoadState           LoadState     (VM first, always)
//
// Types that mirror a C structure, ioctl encoders and constants come from
// github.com/bobuhiro11/gokvm/kvm where that module has them right; everything
// that passes a pointer is done here, so that the conversion to uintptr happens
// inside the system call's own expression. A test compares each structure size
// and each ioctl number with the kernel's header.
//
// # Interrupted calls
//
// The Go runtime preempts with SIGURG, so any ioctl may be interrupted. Every
// call but KVM_RUN is repeated on EINTR. [VCPU.Run] hands EINTR to its caller,
// who asked for it by a signal or by [VCPU.SetImmediateExit].
//
// # Threads
//
// KVM wants each vCPU to be used by one thread. [VCPU.Run] and everything that
// reads or writes vCPU state must be called by one goroutine at a time, the
// runner locked to its thread; only [VCPU.SetImmediateExit] may be called by
// any goroutine at any time. The methods of VM may be called concurrently.
//
// # Errors
//
// Every error but Run's names the ioctl and what it was about, and wraps the
// errno: "vCPU 2: KVM_SET_SREGS2: invalid argument".
package kvm
