package vmm

import (
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"microvm/devices"
	"microvm/kvm"
)

// A vcpu is one virtual CPU and the OS thread that runs it.
type vcpu struct {
	kvm  *kvm.VCPU
	vm   *VM
	set  *cpuSet
	pio  *devices.Bus
	mmio *devices.Bus
	acks *acks
	// tid is the thread's kernel id, 0 before there is one.
	tid   atomic.Int32
	exits exitCounts
}

// run is the vCPU's thread. It calls ready once the thread exists, and
// returns when the VM has ended.
//
// The goroutine stays locked to its thread and ends with it: KVM ties a vCPU
// to the thread that runs it (kicks go there; changing it costs), and the
// thread id is what userfaultfd reports a fault of.
func (c *vcpu) run(ready func()) {
	runtime.LockOSThread()
	c.tid.Store(int32(unix.Gettid()))
	ready()
	if !c.set.hold(c) {
		return
	}
	for {
		reason, err := c.kvm.Run()
		switch err {
		case nil:
			c.exits.count(reason)
			if !c.dispatch(reason) {
				c.vm.crashed(c.crash(reason))
				return
			}
		case unix.EINTR:
			c.exits.kicked.Add(1)
			if !c.set.hold(c) {
				return
			}
		case unix.EAGAIN:
			// The CPU waited for its INIT inside KVM_RUN and has got it; the
			// next one waits for the SIPI.
		default:
			c.vm.crashed(c.describe(fmt.Sprintf("KVM_RUN: %v", err)))
			return
		}
	}
}

// dispatch handles one exit. It returns false for one that the guest cannot
// survive. It runs at every exit of every vCPU: no allocation, no waiting.
func (c *vcpu) dispatch(reason kvm.ExitReason) bool {
	switch reason {
	case kvm.ExitIO:
		c.portIO(c.kvm.IO())
		return true
	case kvm.ExitMMIO:
		c.memoryIO(c.kvm.MMIO())
		return true
	}
	return false
}

// portIO handles an IN or OUT, of a string instruction as many as it has
// gathered. A port without a device reads as ones.
func (c *vcpu) portIO(x kvm.IOExit) {
	for i := 0; i < x.Count*x.Size; i += x.Size {
		p := x.Data[i : i+x.Size]
		if x.Write {
			c.pio.Write(uint64(x.Port), p)
		} else {
			c.pio.Read(uint64(x.Port), p)
		}
	}
}

// memoryIO handles an access to an address that is not RAM, after the writes that
// KVM has kept.
func (c *vcpu) memoryIO(x kvm.MMIOExit) {
	c.acks.settle()
	if x.Write {
		c.mmio.Write(x.Addr, x.Data)
	} else {
		c.mmio.Read(x.Addr, x.Data)
	}
}
