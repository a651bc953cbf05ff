package memslot

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Dirty is the block's bitmap of pages that accessors have written since
// StartDirtyLog. One bit is one base page of the host, also in a Hugetlb
// block, so that it lines up with KVM's dirty log. To send a page: clear its
// bit, then read it, in this order.
func (b *Block) Dirty() *Bitmap { return b.dirty }

// StartDirtyLog clears the bitmap and begins to record. When it returns, every
// write whose data is not visible yet to the caller will be marked.
func (b *Block) StartDirtyLog() error {
	b.dirty.ClearRange(0, b.dirty.Len())
	b.state.Or(stateLogging)
	// A writer stores its data, then looks whether to mark it. Without a
	// barrier between the two a CPU may look first and store later, past
	// our back. The barrier is ours to pay, once, not the writer's every
	// time: membarrier makes each CPU that runs a thread of this process
	// execute one.
	if err := barrier(); err != nil {
		b.StopDirtyLog()
		return fmt.Errorf("RAM block %q: start dirty log: %w", b.name, err)
	}
	return nil
}

// StopDirtyLog ends the recording. The bits stay.
func (b *Block) StopDirtyLog() { b.state.And(^uint32(stateLogging)) }

// From linux/membarrier.h.
const (
	membarrierPrivateExpedited         = 1 << 3
	membarrierRegisterPrivateExpedited = 1 << 4
)

var registerBarrier = sync.OnceValue(func() error { return membarrier(membarrierRegisterPrivateExpedited) })

// barrier orders memory accesses on all CPUs that run this process.
func barrier() error {
	if err := registerBarrier(); err != nil {
		return err
	}
	return membarrier(membarrierPrivateExpedited)
}

func membarrier(command uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, command, 0, 0); errno != 0 {
		return fmt.Errorf("membarrier command %d: %w (needs Linux 4.14 with CONFIG_MEMBARRIER)", command, errno)
	}
	return nil
}
