package migration

import (
	"context"

	"microvm/memslot"
)

// Snapshotter is one piece of state that moves with a VM: a device, a vCPU,
// KVM's own interrupt controllers. It is all that migration knows of devices.
type Snapshotter interface {
	// ID names the instance, unique within a VM and equal on both sides:
	// "serial0", "cpu3", "kvm".
	ID() string
	// Version numbers the format that Save writes. A destination refuses,
	// by ID and both numbers, a version newer than the one it has.
	Version() uint32
	// Save returns the state. The machine is paused when it is called.
	Save() ([]byte, error)
	// Load takes the state over. version is the one that Save's side had;
	// state comes from a stranger and is checked like any other input.
	Load(version uint32, state []byte) error
}

// Machine is a VM as both ends of a migration see it.
type Machine interface {
	// Blocks lists the RAM blocks, in the same order on both sides.
	Blocks() []*memslot.Block
	// Devices lists what is saved and loaded, in the order of loading.
	Devices() []Snapshotter
}

// SourceMachine is the VM that is to leave.
type SourceMachine interface {
	Machine
	// Config describes the machine well enough for the other side to build
	// one like it; its form is the machine's own business (package vmm
	// writes JSON).
	Config() ([]byte, error)
	// Pause stops every vCPU and every device. When it returns, neither
	// guest memory nor device state changes until Resume.
	Pause(ctx context.Context) error
	// Resume undoes Pause: the migration failed, the VM stays here.
	Resume() error
	// HandOver gives the VM up, just before POSTCOPY_RUN is written: from
	// then on nothing but TakeBack lets it run here. An error, such as that
	// the VM has ended meanwhile, stops the migration in time.
	HandOver() error
	// TakeBack undoes HandOver: the destination never ran the VM and never
	// will. The VM is paused again.
	TakeBack() error
}

// DirtyLogger is what a SourceMachine is besides if its memory can be sent
// while it runs: by precopy and hybrid. Pages are target pages.
type DirtyLogger interface {
	// StartDirtyLog begins to log writes, by vCPUs and by devices.
	StartDirtyLog() error
	// DirtyPages sets the bits of pages that were written since logging
	// began or since ClearDirty. There is a bitmap for each block.
	DirtyPages(dirty []*memslot.Bitmap) error
	// ClearDirty has writes to some pages logged anew: those whose bits are
	// set in mask, whose bit 0 stands for page first of the block, a
	// multiple of 64. What is read after it and written later is logged.
	ClearDirty(block int, first uint64, mask []uint64) error
	// StopDirtyLog ends it.
	StopDirtyLog() error
}

// DestinationMachine is the VM that is being built for the one that comes.
type DestinationMachine interface {
	Machine
	// Run starts the vCPUs. It is called once, after every device's Load,
	// when this side has become the owner.
	Run() error
	// Stop ends, for good, the vCPUs of a machine that has never run, and
	// waits for them. It is called before guest memory is torn down.
	Stop()
	// Abandon says that the guest, which has run here, is lost: err, a
	// *[LostError], says why. Its vCPUs are to be stopped, but not to be
	// waited for: they may wait in the kernel for a page that never comes,
	// where no signal reaches them. What is missing is kept from them as
	// long as the process lives, so that nothing of the machine may be
	// freed: the process is to end.
	Abandon(err error)
	// VCPUThreads gives the kernel thread id of each vCPU, by vCPU index,
	// so that time spent waiting for a page is put to the right one.
	// Valid once Run has returned.
	VCPUThreads() []int
	// Settle says that every page is here: from now on the machine is like
	// one that was started here. The guest may have ended already.
	Settle() error
	// Done is closed when the guest has ended, here, after Run: it needs no
	// more pages, and the source is told that all is well.
	Done() <-chan struct{}
}

// Builder makes the destination's machine from what Config wrote. An error
// says exactly what this host cannot provide, and refuses the migration
// before anything has moved.
type Builder func(ctx context.Context, config []byte) (DestinationMachine, error)
