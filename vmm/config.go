package vmm

import (
	"fmt"
	"io"
	"os"

	"microvm/guest"
	"microvm/kvm"
)

// MaxCPUs is the number of vCPUs that the guest's tables are made for. KVM's
// own limit may be lower and is checked when the VM is built.
const MaxCPUs = 32

// hugePageSize is the page size that Hugepages asks for.
const hugePageSize = 2 << 20

// Where a VM's console goes.
const (
	ConsoleStdio  = "stdio"  // the process's own terminal, and console.sock
	ConsoleSocket = "socket" // console.sock alone
	ConsoleOff    = "off"    // nowhere
)

// Config is what a user chooses of a VM.
type Config struct {
	// Name is the VM's name, which its state directory has too.
	Name string `json:"name"`
	// Kernel is the path of a bzImage, an ELF64 vmlinux or a PVH ELF. Empty
	// is the embedded tiny kernel.
	Kernel string `json:"kernel,omitempty"`
	// Initrd is the path of an initial RAM disk, or empty.
	Initrd string `json:"initrd,omitempty"`
	// Cmdline is the kernel's command line.
	Cmdline string `json:"cmdline,omitempty"`
	// CPUs is the number of vCPUs, 1 to MaxCPUs.
	CPUs int `json:"cpus"`
	// Memory is the size of guest RAM in bytes.
	Memory uint64 `json:"memory"`
	// Hugepages takes guest RAM from the host's pool of 2 MiB pages.
	Hugepages bool `json:"hugepages,omitempty"`
	// Console is one of the Console constants; empty is ConsoleSocket.
	Console string `json:"console,omitempty"`
	// VirtioConsole gives the guest a virtio console, hvc0, on the same
	// Console as its serial port.
	VirtioConsole bool `json:"virtio_console,omitempty"`
	// Disks are the guest's, in this order: vda, vdb, ...
	Disks []DiskConfig `json:"disks,omitempty"`
	// Nets are the guest's network cards: eth0, eth1, ...
	Nets []NetConfig `json:"nets,omitempty"`
	// RNG gives the guest a device that it gets random bytes from.
	RNG bool `json:"rng,omitempty"`
	// Balloon is what the guest's memory balloon is like; nil is without one.
	Balloon *BalloonConfig `json:"balloon,omitempty"`
	// Vsock is the guest's vsock device; nil is without one.
	Vsock *VsockConfig `json:"vsock,omitempty"`
}

// ReadConfig reads a Config from a JSON file, over the values that c has. A field
// that there is not is an error, since it may be a misspelt one, and the error
// says where it stands. What the values are is for Validate to check.
func ReadConfig(path string, c *Config) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("VM config: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err != nil {
		return fmt.Errorf("VM config: %w", err)
	}
	if len(b) > maxConfigFile {
		return fmt.Errorf("VM config: %s: more than %d bytes", path, maxConfigFile)
	}
	if err := decodeStrict(b, c); err != nil {
		return fmt.Errorf("VM config: %s: %w", path, err)
	}
	return nil
}

// maxConfigFile bounds a file that somebody may have mistaken for a config.
const maxConfigFile = 1 << 20

// Validate checks all that can be checked without looking at the host.
func (c Config) Validate() error {
	if err := ValidateName(c.Name); err != nil {
		return err
	}
	if c.CPUs < 1 || c.CPUs > MaxCPUs {
		return fmt.Errorf("VM %s: %d vCPUs: has to be 1 to %d", c.Name, c.CPUs, MaxCPUs)
	}
	if _, err := guest.RAMRegions(c.Memory); err != nil {
		return fmt.Errorf("VM %s: %w", c.Name, err)
	}
	if c.Hugepages && c.Memory%hugePageSize != 0 {
		return fmt.Errorf("VM %s: memory of %d bytes is not a multiple of the 2 MiB huge page", c.Name, c.Memory)
	}
	if c.Initrd != "" && c.Kernel == "" {
		return fmt.Errorf("VM %s: an initrd (%s) needs a kernel: the embedded tiny kernel takes none", c.Name, c.Initrd)
	}
	if len(c.Disks) > MaxDisks {
		return fmt.Errorf("VM %s: %d disks: %d at most", c.Name, len(c.Disks), MaxDisks)
	}
	for _, d := range c.Disks {
		if err := d.validate(); err != nil {
			return fmt.Errorf("VM %s: %w", c.Name, err)
		}
	}
	for i, n := range c.Nets {
		if err := n.validate(); err != nil {
			return fmt.Errorf("VM %s: network card %d: %w", c.Name, i, err)
		}
	}
	if c.Balloon != nil && c.Balloon.Size > c.Memory {
		return fmt.Errorf("VM %s: a balloon of %d bytes: the guest has %d", c.Name, c.Balloon.Size, c.Memory)
	}
	if err := c.Vsock.validate(); err != nil {
		return fmt.Errorf("VM %s: %w", c.Name, err)
	}
	if n := c.virtioDevices(); n > maxVirtio {
		return fmt.Errorf("VM %s: %d virtio devices: %d at most", c.Name, n, maxVirtio)
	}
	switch c.Console {
	case "", ConsoleStdio, ConsoleSocket, ConsoleOff:
	default:
		return fmt.Errorf("VM %s: console %q: has to be %s, %s or %s", c.Name, c.Console, ConsoleStdio, ConsoleSocket, ConsoleOff)
	}
	return nil
}

// machineFormat numbers the form of machineConfig.
const machineFormat = 1

// machineConfig is what a migration's CONFIG message carries: the machine as
// the guest sees it, and what the other host has to be able to do.
type machineConfig struct {
	Format int    `json:"format"`
	VM     Config `json:"vm"`
	// Paused: its user had paused the VM, so it does not run when it has
	// arrived.
	Paused bool             `json:"paused"`
	Blocks []blockConfig    `json:"blocks"`
	CPUID  []kvm.CPUIDEntry `json:"cpuid"` // of vCPU 0
	TSCKHz uint32           `json:"tsc_khz"`
	// Devices are in the order of loading.
	Devices []deviceConfig `json:"devices"`
	// DiskSizes are the disks' capacities in bytes.
	DiskSizes []uint64 `json:"disk_sizes,omitempty"`
	// Sample: this is no VM that is to move, but one like those that its host
	// starts, of which a probe asks. Its disks, network cards and vsock device
	// are not known.
	Sample bool `json:"sample,omitempty"`
}

type blockConfig struct {
	Name string `json:"name"`
	Size uint64 `json:"size"`
}

type deviceConfig struct {
	ID      string `json:"id"`
	Version uint32 `json:"version"`
}
