package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"microvm/guest"
)

// Config describes the machine to the other side of a migration, as JSON.
func (vm *VM) Config() ([]byte, error) {
	c := machineConfig{
		Format: machineFormat,
		VM:     vm.config,
		Paused: vm.pausedByUser(),
		CPUID:  vm.cpuid,
		TSCKHz: vm.tscKHz,

		DiskSizes: vm.diskSizes(),
	}
	c.Blocks, c.Devices = vm.blockConfigs(), vm.deviceConfigs()
	return json.Marshal(c)
}

func (vm *VM) blockConfigs() (blocks []blockConfig) {
	for _, b := range vm.Blocks() {
		blocks = append(blocks, blockConfig{Name: b.Name(), Size: b.Size()})
	}
	return blocks
}

func (vm *VM) deviceConfigs() (devices []deviceConfig) {
	for _, d := range vm.snapshotters {
		devices = append(devices, deviceConfig{ID: d.ID(), Version: d.Version()})
	}
	return devices
}

// NewIncoming builds the machine that another host's Config describes, paused
// and empty, to take over a VM from there. An error lists what this host
// cannot provide; nothing is left behind then.
func NewIncoming(ctx context.Context, configJSON []byte, o Options) (*VM, error) {
	c, err := parseMachine(configJSON)
	if err != nil {
		return nil, fmt.Errorf("incoming VM: %w", err)
	}
	if c.Sample {
		return nil, errors.New("incoming VM: the machine config is a sample, of which one can only ask what would stop it")
	}
	if o.Name != "" {
		c.VM.Name = o.Name
	}
	if o.Hugepages != nil {
		c.VM.Hugepages = *o.Hugepages
		if err := c.VM.Validate(); err != nil {
			return nil, fmt.Errorf("incoming VM on huge pages: %w", err)
		}
	}
	vm, err := incoming(ctx, c, o)
	if err != nil {
		return nil, fmt.Errorf("incoming VM %s: %w", c.VM.Name, err)
	}
	return vm, nil
}

func incoming(ctx context.Context, c machineConfig, o Options) (*VM, error) {
	if err := checkMemory(c.VM.Memory, c.VM.Hugepages); err != nil {
		return nil, err
	}
	if err := placeDisks(c.VM.Disks, o.Disks, o.logger()); err != nil {
		return nil, err
	}
	if err := placeNets(c.VM.Nets, o.Nets, o.logger()); err != nil {
		return nil, err
	}
	if err := c.VM.placeVsock(o.Vsock); err != nil {
		return nil, err
	}
	vm, err := assemble(ctx, c.VM, StateIncoming, o)
	if c.VM.Hugepages && errors.Is(err, unix.ENOMEM) {
		return nil, offerOtherPages(err)
	}
	if err != nil {
		return nil, err
	}
	vm.heldByUser = c.Paused
	vm.cpuid = c.CPUID
	if err := errors.Join(vm.checkCPU(c), checkBlocks(c, vm.blockConfigs()), checkDevices(c, vm.deviceConfigs()), vm.checkDisks(c)); err != nil {
		return nil, errors.Join(err, vm.Close())
	}
	vm.tscKHz = c.TSCKHz
	// Now, for it costs more than all else that a vCPU's state needs, and
	// while that is loaded the guest runs nowhere.
	for i, cpu := range vm.cpus.cpus {
		if err := cpu.kvm.SetCPUID(guest.CPUIDOf(i, c.CPUID)); err != nil {
			return nil, errors.Join(err, vm.Close())
		}
	}
	return vm, nil
}

// offerOtherPages adds another remedy to a want of huge pages.
func offerOtherPages(err error) error {
	return fmt.Errorf("%w; or take the VM in on other pages: microvm receive --hugepages off", err)
}

// maxCPUIDEntries bounds what a source may ask for; KVM takes no more.
const maxCPUIDEntries = 256

// parseMachine reads what Config wrote, or what somebody says it has.
func parseMachine(b []byte) (machineConfig, error) {
	// The format comes first: another one may have other fields.
	var version struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return machineConfig{}, fmt.Errorf("machine config: %w", err)
	}
	if version.Format != machineFormat {
		return machineConfig{}, fmt.Errorf("machine config: format %d, this program has format %d; run the same version on both hosts", version.Format, machineFormat)
	}
	var c machineConfig
	if err := decodeStrict(b, &c); err != nil {
		return machineConfig{}, fmt.Errorf("machine config: %w", err)
	}
	if err := c.VM.Validate(); err != nil {
		return machineConfig{}, err
	}
	if n := len(c.CPUID); n == 0 || n > maxCPUIDEntries {
		return machineConfig{}, fmt.Errorf("machine config: %d CPUID entries: has to be 1 to %d", n, maxCPUIDEntries)
	}
	return c, nil
}

// checkCPU compares what the guest was told of its processor with what this
// host's can do.
func (vm *VM) checkCPU(c machineConfig) error {
	return errors.Join(vm.checkFeatures(c), vm.checkTSC(c.TSCKHz))
}

// checkFeatures compares the features, by name.
func (vm *VM) checkFeatures(c machineConfig) error {
	have, err := vm.hostCPUID(0, c.TSCKHz)
	if err != nil {
		return err
	}
	if missing := guest.CompareCPUID(c.CPUID, have); len(missing) > 0 {
		return fmt.Errorf("this host's processor lacks %s, which the guest was started with", strings.Join(missing, ", "))
	}
	return nil
}

// checkBlocks compares the RAM blocks one by one with those that this side makes.
// Their page sizes may differ: migration sees to that.
func checkBlocks(c machineConfig, ours []blockConfig) error {
	if len(c.Blocks) != len(ours) {
		return fmt.Errorf("machine config: %d RAM blocks, this program makes %d", len(c.Blocks), len(ours))
	}
	for i, b := range ours {
		theirs := c.Blocks[i]
		if theirs != b {
			return fmt.Errorf("machine config: RAM block %d is %q of %d bytes, this program makes %q of %d",
				i, theirs.Name, theirs.Size, b.Name, b.Size)
		}
	}
	return nil
}

// checkDevices compares the devices and their versions, in the order of
// loading, with those that this side has.
func checkDevices(c machineConfig, have []deviceConfig) error {
	var errs []error
	ours := make(map[string]uint32)
	for _, d := range have {
		ours[d.ID] = d.Version
	}
	for _, d := range c.Devices {
		version, ok := ours[d.ID]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("unknown device %q", d.ID))
		case d.Version > version:
			errs = append(errs, fmt.Errorf("device %q has version %d, this program only %d; run a version that is as new as the source's", d.ID, d.Version, version))
		}
		delete(ours, d.ID)
	}
	for _, d := range have {
		if _, left := ours[d.ID]; left {
			errs = append(errs, fmt.Errorf("the source has no device %q", d.ID))
		}
	}
	return errors.Join(errs...)
}
