package vmm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"microvm/devices"
	"microvm/guest"
	"microvm/kvm"
	"microvm/memslot"
	"microvm/migration"
)

// Options is what a VM needs of the process it lives in.
type Options struct {
	// Logger takes what the VMM has to say; nil discards it.
	Logger *slog.Logger
	// Console is what the guest's serial port, and its virtio console, are
	// connected to; nil is nothing.
	Console *Console
	// Name, if not empty, replaces the name that an incoming VM had.
	Name string
	// Hugepages, if not nil, replaces the incoming VM's.
	Hugepages *bool
	// Disks are the paths, on this host, of an incoming VM's disks.
	Disks []string
	// Nets are the sides, on this host, of an incoming VM's network cards.
	Nets []TapConfig
	// Vsock is the path, on this host, of an incoming VM's vsock device;
	// empty is in its state directory.
	Vsock string
	// clockStands has the guest's clock go on from where it stood, however long ago:
	// see Restore.
	clockStands bool
}

func (o Options) logger() *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}

// A VM is one virtual machine. New makes one that boots, NewIncoming one that
// waits for the state of a migration; Close frees it after Done.
type VM struct {
	config Config
	log    *slog.Logger

	sys *kvm.System
	kvm *kvm.VM
	mem *memslot.Memory
	ram *memslot.Block
	// regions are the parts of ram in guest-physical memory, by slot.
	regions []guest.RAMRegion
	cpuid   []kvm.CPUIDEntry // of vCPU 0
	tscKHz  uint32
	pio     devices.Bus
	mmio    devices.Bus
	acks    acks
	cpus    *cpuSet
	lines   []*edgeLine
	serial  *devices.Serial
	rtc     *devices.RTC
	pm      *devices.PM
	virtio  []*virtioDevice
	disks   []*disk
	nets    []*netCard
	balloon *ballooned // nil: there is none
	vsock   *vsocket   // nil: there is none
	hvc     *hvc       // nil: there is none

	// generation is the line that tells the guest of a new generation ID.
	generation *edgeLine
	// inDoubt: it gets one when it is taken back.
	inDoubt atomic.Bool

	// stopTyping ends typeInput.
	stopTyping context.CancelFunc

	// snapshotters is what moves, in the order of loading.
	snapshotters []migration.Snapshotter

	// control serializes what is done to the VM as a whole: one pause at a
	// time, and no resume by a user between a migration's steps.
	control sync.Mutex
	// errand is what is being done to the VM as a whole, which other commands
	// would disturb; guarded by control.
	errand Errand
	// pausedBefore: the user had paused the VM before the errand began; guarded
	// by control. heldByUser is the same of one that has arrived.
	pausedBefore bool
	heldByUser   bool
	// ofFile: it was restored from a snapshot.
	ofFile bool

	mu sync.Mutex
	// state to reason are guarded by mu.
	state    State
	ending   bool  // end has been called
	outcome  error // what Wait returns
	reason   string
	done     chan struct{} // closed when no vCPU runs any more, for good
	lost     chan struct{} // closed by Abandon
	inMemory memoryUse
}

// New builds a VM and loads its kernel. It does not run yet: see Start.
func New(ctx context.Context, config Config, o Options) (*VM, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	boot, err := openBoot(config)
	if err != nil {
		return nil, fmt.Errorf("VM %s: %w", config.Name, err)
	}
	defer boot.close()
	vm, err := assemble(ctx, config, StateCreated, o)
	if err != nil {
		return nil, fmt.Errorf("VM %s: %w", config.Name, err)
	}
	if err = vm.lockDisks(); err == nil {
		err = vm.listenVsock()
	}
	if err == nil {
		err = vm.boot(boot)
	}
	if err != nil {
		return nil, fmt.Errorf("VM %s: %w", config.Name, errors.Join(err, vm.Close()))
	}
	return vm, nil
}

// Name is the VM's name.
func (vm *VM) Name() string { return vm.config.Name }

// UserConfig is what the VM was made from.
func (vm *VM) UserConfig() Config { return vm.config }

// State is where the VM is in its life.
func (vm *VM) State() State {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return vm.state
}

// Done is closed when the VM has ended: no vCPU of it runs here again.
func (vm *VM) Done() <-chan struct{} { return vm.done }

// Wait returns when the VM has ended. It returns nil if the guest powered
// off, the VM was stopped or has migrated, else ErrReset, ErrGuestPanic, a
// *CrashError, what Abandon was given, or the context's error.
func (vm *VM) Wait(ctx context.Context) error {
	select {
	case <-vm.done:
	case <-vm.lost:
	case <-ctx.Done():
		return ctx.Err()
	}
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return vm.outcome
}

// ExitStatus says how the VM ended. Preconditions: Done or Lost is closed.
func (vm *VM) ExitStatus() ExitStatus {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return ExitStatus{Code: ExitCode(vm.outcome), Reason: vm.reason}
}

// Blocks lists guest RAM: one block, "ram".
func (vm *VM) Blocks() []*memslot.Block { return []*memslot.Block{vm.ram} }

// Memory is the guest-physical address space.
func (vm *VM) Memory() *memslot.Memory { return vm.mem }

// Devices lists all state but memory, in the order of loading: "kvm" (the
// interrupt controllers, the PIT and the clock), since a local APIC's pending
// interrupts refer to them; "cpu0" and on; then the devices, which raise
// again whatever interrupt they had pending.
func (vm *VM) Devices() []migration.Snapshotter { return vm.snapshotters }
