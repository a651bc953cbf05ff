package vmm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"microvm/devices/tap"
	"microvm/devices/virtio/blk"
	"microvm/devices/virtio/net"
	"microvm/guest"
	"microvm/memslot"
	"microvm/migration"
)

// Names of what CheckIncoming looks at (migration.Finding.What).
const (
	findMachine  = "machine"   // the description itself
	findName     = "name"      // a VM of this name, and where its sockets are
	findMemory   = "memory"    // room for it
	findPageSize = "page-size" // what it is made of on both sides
	findDisk     = "disk"
	findNet      = "net"
	findVsock    = "vsock"
	findDevices  = "devices" // kinds and formats of their states
	findKVM      = "kvm"
	findVCPUs    = "vcpus"
	findCPU      = "cpu" // features, by name
	findTSC      = "tsc"
)

// CheckIncoming says what NewIncoming would refuse of the machine that another
// host's Config describes: all reasons at once, and what is well besides. It
// uses the same checks, but reserves nothing, makes no network device and maps no
// memory that it keeps. Of KVM it takes a VM with one vCPU and nothing else, for
// as long as it takes to ask what that can do.
func CheckIncoming(ctx context.Context, configJSON []byte, o Options) []migration.Finding {
	c, err := parseMachine(configJSON)
	if err != nil {
		return []migration.Finding{{What: findMachine, Status: migration.FindingMissing, Text: err.Error()}}
	}
	f := &fitness{c: c, o: o}
	f.theirHugepages = c.VM.Hugepages
	if o.Name != "" {
		f.c.VM.Name = o.Name
	}
	if o.Hugepages != nil {
		f.c.VM.Hugepages = *o.Hugepages
	}
	looks := []func(){f.memory, f.kvm}
	if !c.Sample {
		looks = []func(){f.name, f.memory, f.disks, f.nets, f.vsock, f.devices, f.kvm}
	}
	for _, look := range looks {
		if ctx.Err() != nil {
			f.bad(findMachine, fmt.Errorf("this host took too long to look at everything: %w", ctx.Err()))
			break
		}
		look()
	}
	return f.found
}

// fitness is one run of CheckIncoming.
type fitness struct {
	c              machineConfig
	o              Options
	theirHugepages bool
	found          []migration.Finding
}

func (f *fitness) good(what, format string, args ...any) {
	f.found = append(f.found, migration.Finding{What: what, Status: migration.FindingOK, Text: fmt.Sprintf(format, args...)})
}

func (f *fitness) bad(what string, err error) {
	f.found = append(f.found, migration.Finding{What: what, Status: migration.FindingMissing, Text: err.Error()})
}

// say is bad with an error, good without.
func (f *fitness) say(what string, err error, format string, args ...any) {
	if err != nil {
		f.bad(what, err)
		return
	}
	f.good(what, format, args...)
}

// name looks whether the VM's state directory can be had. With a name of this
// host's, this process has it already.
func (f *fitness) name() {
	name := f.c.VM.Name
	if f.o.Name != "" {
		f.good(findName, "%s, as receive was told", name)
		return
	}
	_, err := statePath(name)
	if err == nil {
		var i Instance
		if i, err = FindInstance(name); errors.Is(err, ErrNoSuchVM) {
			err = nil
		} else if err == nil && i.Running {
			err = fmt.Errorf("%s: %w (pid %d) on this host; give it another one: receive --name NAME", name, ErrNameTaken, i.PID)
		}
	}
	f.say(findName, err, "%s is free", name)
}

// memory looks whether there is room for the guest's.
func (f *fitness) memory() {
	need, huge := f.c.VM.Memory, f.c.VM.Hugepages
	if err := f.c.VM.Validate(); err != nil {
		f.bad(findPageSize, err) // on the pages of this host
		return
	}
	f.good(findPageSize, "%s at the source, %s here", pagesOf(f.theirHugepages), pagesOf(huge))
	if huge {
		err := memslot.Room(need, memslot.Hugetlb)
		if err != nil {
			err = offerOtherPages(err)
		}
		_, free := memslot.HugePages()
		f.say(findMemory, err, "%d pages of 2 MiB are needed, %d are free", need/hugePageSize, free)
		return
	}
	err := checkMemory(need, huge)
	if err == nil {
		err = memslot.Room(need, memslot.Anonymous)
	}
	if err != nil {
		f.bad(findMemory, err)
		return
	}
	available, _, err := AvailableMemory()
	f.say(findMemory, err, "the guest has %d MiB of memory, this host has %d MiB available", need>>20, available>>20)
}

// pagesOf says what guest memory is made of.
func pagesOf(huge bool) string {
	if huge {
		return "2 MiB"
	}
	return fmt.Sprintf("%d KiB", os.Getpagesize()>>10)
}

// disks looks at the files that this host's user named.
func (f *fitness) disks() {
	disks := slices.Clone(f.c.VM.Disks)
	if err := placeDisks(disks, f.o.Disks, slog.New(slog.DiscardHandler)); err != nil {
		f.bad(findDisk, err)
		return
	}
	if len(f.c.DiskSizes) != len(disks) {
		f.bad(findDisk, fmt.Errorf("machine config: %d sizes of %d disks", len(f.c.DiskSizes), len(disks)))
		return
	}
	for i, d := range disks {
		size, err := diskSize(d)
		if err == nil {
			err = checkDiskSize(d.Path, size, f.c.DiskSizes[i])
		}
		f.say(findDisk, err, "%s, %d bytes", d.Path, size)
	}
}

// diskSize opens a disk's file and closes it again.
func diskSize(d DiskConfig) (uint64, error) {
	image, err := blk.OpenImage(d.Path, d.ReadOnly)
	if err != nil {
		return 0, err
	}
	size, err := image.Bytes()
	return size, errors.Join(err, image.Close())
}

// nets looks at what the network cards would be connected to.
func (f *fitness) nets() {
	nets := slices.Clone(f.c.VM.Nets)
	if err := placeNets(nets, f.o.Nets, slog.New(slog.DiscardHandler)); err != nil {
		f.bad(findNet, err)
		return
	}
	for i, n := range nets {
		var err error
		if n.Tap.FD == 0 { // one that was passed is there
			if _, err = parseMAC(n.MAC); err == nil {
				err = tap.Look(n.tapOptions())
			}
		}
		if err != nil {
			err = fmt.Errorf("network card %d: %w", i, err)
		}
		f.say(findNet, err, "card %d: %s", i, n.Tap)
	}
}

func (f *fitness) vsock() {
	c := f.c.VM
	err := c.placeVsock(f.o.Vsock)
	if c.Vsock == nil && err == nil {
		return
	}
	if err == nil {
		err = c.Vsock.validate()
	}
	f.say(findVsock, err, "guest CID %d", cidOf(c.Vsock))
}

func cidOf(c *VsockConfig) uint64 {
	if c == nil {
		return 0
	}
	return c.CID
}

// devices compares what has a state, and in which format.
func (f *fitness) devices() {
	blocks := []blockConfig{{Name: ramBlock, Size: f.c.VM.Memory}}
	err := errors.Join(checkBlocks(f.c, blocks), checkDevices(f.c, devicesOf(f.c.VM)))
	f.say(findDevices, err, "%d states, in formats that this side reads", len(f.c.Devices))
}

// kvm asks a VM without memory and devices.
func (f *fitness) kvm() {
	vm := empty(f.c.VM, StateIncoming, f.o)
	defer func() {
		if err := vm.Close(); err != nil {
			f.bad(findKVM, err)
		}
	}()
	if err := vm.openKVM(); err != nil {
		f.bad(findKVM, err)
		return
	}
	f.say(findVCPUs, vm.checkCPUCount(), "%d", f.c.VM.CPUs)
	if err := vm.makeCPUs(1); err != nil {
		f.bad(findKVM, err)
		return
	}
	err := vm.checkFeatures(f.c)
	if err == nil {
		err = vm.cpus.cpus[0].kvm.SetCPUID(guest.CPUIDOf(0, f.c.CPUID))
	}
	f.say(findCPU, err, "this host has all features that the guest was started with")
	f.say(findTSC, vm.checkTSC(f.c.TSCKHz), "%d kHz, and %d kHz on this host", f.c.TSCKHz, vm.tscKHz)
}

// String is what a user writes for it.
func (c TapConfig) String() string {
	var options []string
	switch {
	case c.FD != 0:
		options = append(options, fmt.Sprintf("fd=%d", c.FD))
	case c.Name != "":
		options = append(options, "tap="+c.Name)
	default:
		options = append(options, "tap=auto")
	}
	if c.Bridge != "" {
		options = append(options, "bridge="+c.Bridge)
	}
	if c.Owner != nil {
		options = append(options, fmt.Sprintf("owner=%d", *c.Owner))
	}
	return strings.Join(options, ",")
}

// tapOptions are those of the host's side of a card.
func (c *NetConfig) tapOptions() tap.Options {
	o := tap.Options{Name: c.Tap.Name, Queues: max(c.Queues, 1), MTU: c.MTU, Bridge: c.Tap.Bridge, Owner: -1}
	if o.MTU == 0 {
		o.MTU = net.DefaultMTU
	}
	if c.Tap.Owner != nil {
		o.Owner = *c.Tap.Owner
	}
	return o
}
