package vmm

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"microvm/devices/virtio/vsock"
)

// VsockConfig is what a user chooses of a vsock device.
type VsockConfig struct {
	// CID is the guest's, vsock.MinCID to vsock.MaxCID.
	CID uint64 `json:"cid"`
	// Path is that of the unix socket of the host's programs; empty is
	// vsock.sock in the VM's state directory.
	Path string `json:"path,omitempty"`
}

// ParseVsock reads what a user writes: cid=N[,path=UDS].
func ParseVsock(text string) (*VsockConfig, error) {
	c := &VsockConfig{}
	for option := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(option, "=")
		var err error
		switch {
		case key == "cid":
			c.CID, err = strconv.ParseUint(value, 10, 64)
		case key == "path" && value != "":
			c.Path, err = filepath.Abs(value)
		default:
			err = errors.New("unknown; there are cid=N and path=UDS")
		}
		if err != nil {
			return nil, fmt.Errorf("vsock: option %q: %w", option, err)
		}
	}
	return c, c.validate()
}

func (c *VsockConfig) validate() error {
	if c == nil {
		return nil
	}
	if c.CID < vsock.MinCID || c.CID > vsock.MaxCID {
		return fmt.Errorf("vsock: CID %d: has to be %d to %d", c.CID, vsock.MinCID, vsock.MaxCID)
	}
	// The longest that there can be: that of a program at the last port.
	longest := c.Path + "_4294967295"
	if limit := len(unix.RawSockaddrUnix{}.Path) - 1; len(longest) > limit {
		return fmt.Errorf("vsock: %s: too long for a socket's path of %d bytes; choose another with path=UDS", longest, limit)
	}
	return nil
}

// A vsocket is the virtio vsock device of a VM.
type vsocket struct {
	*virtioDevice
	vsock *vsock.Device
	path  string
}

// addVsock makes the vsock device, if there is to be one. Nobody can connect
// before its owner listens: see listenVsock.
func (vm *VM) addVsock() error {
	if vm.config.Vsock == nil {
		return nil
	}
	c := *vm.config.Vsock
	if c.Path == "" {
		root, err := StateRoot()
		if err != nil {
			return err
		}
		c.Path = filepath.Join(root, vm.config.Name, vsockSocket)
	}
	if err := c.validate(); err != nil {
		return err
	}
	vm.config.Vsock = &c
	backend, err := vsock.New(vsock.Options{CID: c.CID, Path: c.Path, Log: vm.log})
	if err != nil {
		return err
	}
	device, err := vm.addVirtio("vsock0", backend)
	if err != nil {
		return err
	}
	vm.vsock = &vsocket{device, backend, c.Path}
	return nil
}

// placeVsock gives an incoming VM's vsock device its path on this host, which is
// never the source's to choose.
func (c *Config) placeVsock(here string) error {
	if c.Vsock == nil {
		if here != "" {
			return fmt.Errorf("--vsock %s: the VM has no vsock device", here)
		}
		return nil
	}
	c.Vsock.Path = here
	return nil
}

// listenVsock lets the host's programs and the guest connect: this VM is the one
// that runs.
func (vm *VM) listenVsock() error {
	if vm.vsock == nil {
		return nil
	}
	l, err := listenUnix(vm.vsock.path)
	if err != nil {
		return fmt.Errorf("vsock: %w", err)
	}
	vm.vsock.vsock.Listen(l)
	return nil
}

// leaveVsock ends every connection: the VM runs elsewhere from here on, or not
// at all. Preconditions: the device is held.
func (vm *VM) leaveVsock() {
	if vm.vsock == nil {
		return
	}
	if err := vm.vsock.vsock.Leave(); err != nil {
		vm.log.Warn("the vsock device's socket stays behind", "err", err)
	}
}

// returnVsock is listenVsock for a VM that has left and is back: its guest hears
// that its connections are gone.
func (vm *VM) returnVsock() {
	if vm.vsock == nil {
		return
	}
	vm.vsock.vsock.TransportReset()
	if err := vm.listenVsock(); err != nil {
		// The guest is worth more.
		vm.log.Error("no program can connect to the guest", "err", err)
	}
}
