package vmm

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"

	"microvm/devices/virtio/blk"
)

// MaxDisks is how many disks a VM can have.
const MaxDisks = maxVirtio

// DiskConfig is what a user chooses of a disk.
type DiskConfig struct {
	// Path is that of a raw file or a block device of the host.
	Path     string `json:"path"`
	ReadOnly bool   `json:"read_only,omitempty"`
	// Serial is what the guest finds as the serial number, at most 20 bytes.
	Serial string `json:"serial,omitempty"`
	// Queues is how many requests' queues it has; 0 is 1.
	Queues int `json:"queues,omitempty"`
}

// ParseDisk reads FILE[,ro][,serial=TEXT][,queues=N]. The path becomes an
// absolute one.
func ParseDisk(text string) (DiskConfig, error) {
	path, rest, _ := strings.Cut(text, ",")
	c := DiskConfig{Path: path}
	for rest != "" {
		var option string
		option, rest, _ = strings.Cut(rest, ",")
		key, value, _ := strings.Cut(option, "=")
		var err error
		switch {
		case option == "ro":
			c.ReadOnly = true
		case key == "serial" && value != "":
			c.Serial = value
		case key == "queues":
			c.Queues, err = strconv.Atoi(value)
			if err == nil && c.Queues == 0 {
				err = errors.New("has to be 1 or more")
			}
		default:
			err = errors.New("unknown; there are ro, serial=TEXT and queues=N")
		}
		if err != nil {
			return c, fmt.Errorf("disk %s: option %q: %w", path, option, err)
		}
	}
	if path != "" {
		var err error
		if c.Path, err = filepath.Abs(path); err != nil {
			return c, err
		}
	}
	return c, c.validate()
}

func (c DiskConfig) validate() error {
	switch {
	case c.Path == "":
		return errors.New("disk: no path")
	case c.Queues < 0 || c.Queues > blk.MaxQueues:
		return fmt.Errorf("disk %s: %d queues: has to be 1 to %d", c.Path, c.Queues, blk.MaxQueues)
	case len(c.Serial) > blk.MaxSerial:
		return fmt.Errorf("disk %s: serial number %q: %d bytes at most", c.Path, c.Serial, blk.MaxSerial)
	}
	return nil
}

// A disk is a virtio block device of a VM, and what is behind it.
type disk struct {
	*virtioDevice
	blk *blk.Disk
}

// addDisks makes the disks. Their images are locked later, by who comes to own
// the VM.
func (vm *VM) addDisks() error {
	for i, c := range vm.config.Disks {
		image, err := blk.OpenImage(c.Path, c.ReadOnly)
		if err != nil {
			return err
		}
		backend, err := blk.NewDisk(image, blk.Options{Serial: c.Serial, Queues: max(c.Queues, 1), Log: vm.log})
		if err != nil {
			return errors.Join(err, image.Close())
		}
		device, err := vm.addVirtio(fmt.Sprintf("blk%d", i), backend)
		if err != nil {
			return fmt.Errorf("disk %s: %w", c.Path, err)
		}
		d := &disk{virtioDevice: device, blk: backend}
		vm.disks = append(vm.disks, d)
		vm.log.Debug("disk", "id", d.mmio.ID(), "path", c.Path, "bytes", backend.Bytes(), "direct", image.Direct())
	}
	return nil
}

// lockDisks makes this VM the one that writes to its disks; all of them, or
// none.
func (vm *VM) lockDisks() error {
	for _, d := range vm.disks {
		if err := d.blk.Image().Lock(); err != nil {
			return errors.Join(err, vm.unlockDisks())
		}
	}
	return nil
}

// settleDisks writes out what only this host's caches have, so that another
// host finds it. It may fail, where unlocking after it hardly can.
func (vm *VM) settleDisks() error {
	for _, d := range vm.disks {
		if err := d.blk.Image().Settle(); err != nil {
			return err
		}
	}
	return nil
}

// unlockDisks lets another VM have the disks. Preconditions: they are held.
func (vm *VM) unlockDisks() error {
	var errs []error
	for _, d := range vm.disks {
		errs = append(errs, d.blk.Image().Unlock())
	}
	return errors.Join(errs...)
}

// GrowDisks looks how large the disks' files are now, and tells the guest of
// those that have grown.
func (vm *VM) GrowDisks() error {
	vm.control.Lock()
	defer vm.control.Unlock()
	if err := vm.free(CommandGrow); err != nil {
		return err
	}
	var errs []error
	for _, d := range vm.disks {
		grown, err := d.blk.Grow()
		if grown {
			d.mmio.Device().ConfigChanged()
			vm.log.Info("disk has grown", "id", d.mmio.ID(), "bytes", d.blk.Bytes())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// placeDisks gives an incoming VM's disks their paths on this host. Only those
// that this host's user named are ever opened: the source is a stranger.
func placeDisks(disks []DiskConfig, here []string, log *slog.Logger) error {
	if len(disks) != len(here) {
		var theirs []string
		for _, d := range disks {
			theirs = append(theirs, d.Path)
		}
		return fmt.Errorf("the VM has %d disks (at the source: %s), and this host was told of %d: say --disk FILE for each, in this order",
			len(disks), strings.Join(theirs, ", "), len(here))
	}
	for i := range disks {
		log.Debug("disk", "at the source", disks[i].Path, "here", here[i])
		disks[i].Path = here[i]
	}
	return nil
}

// diskSizes are the capacities, in bytes, that the guest was told.
func (vm *VM) diskSizes() []uint64 {
	var sizes []uint64
	for _, d := range vm.disks {
		sizes = append(sizes, d.blk.Bytes())
	}
	return sizes
}

// checkDisks refuses images that are smaller here than the guest's disks.
func (vm *VM) checkDisks(c machineConfig) error {
	if len(c.DiskSizes) != len(vm.disks) {
		return fmt.Errorf("machine config: %d sizes of %d disks", len(c.DiskSizes), len(vm.disks))
	}
	var errs []error
	for i, d := range vm.disks {
		errs = append(errs, checkDiskSize(d.blk.Image().Path(), d.blk.Bytes(), c.DiskSizes[i]))
	}
	return errors.Join(errs...)
}

func checkDiskSize(path string, have, need uint64) error {
	if have < need {
		return fmt.Errorf("disk %s has %d bytes here, and the guest's disk %d", path, have, need)
	}
	return nil
}
