package vmm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	stdnet "net"
	"os"
	"strconv"
	"strings"

	"microvm/devices/virtio/net"
)

// NetConfig is what a user chooses of a network card.
type NetConfig struct {
	// MAC is its address, 01:23:45:67:89:ab. Empty is one that is made of
	// the host, the VM's name and the card's number.
	MAC string `json:"mac,omitempty"`
	// MTU is what the guest is told; 0 is the tap's, or 1500 of one that is
	// made.
	MTU int `json:"mtu,omitempty"`
	// Queues is how many pairs of queues it has; 0 is 1.
	Queues int `json:"queues,omitempty"`
	// Tap is the host's side.
	Tap TapConfig `json:"tap"`
}

// TapConfig is the host's side of a network card, which is another one on
// another host.
type TapConfig struct {
	// Name is that of a tap device that is there, or of one to be made. Empty
	// is one to be made that the kernel chooses a name for.
	Name string `json:"name,omitempty"`
	// FD is a file descriptor that is attached to a tap device; 0 is none.
	FD int `json:"fd,omitempty"`
	// Bridge and Owner, of a device that is made: what it becomes a port of,
	// and the number of a user who may attach to it too.
	Bridge string `json:"bridge,omitempty"`
	Owner  *int   `json:"owner,omitempty"`
}

// netOptions is the form of what users say of a network card.
const netOptions = "tap=auto|NAME or fd=N, mac=MAC, mtu=N, queues=N, bridge=NAME, owner=UID"

// ParseNet reads tap=auto|NAME[,mac=MAC][,mtu=N][,queues=N][,bridge=NAME][,owner=UID]
// or fd=N with the first two of the options.
func ParseNet(text string) (NetConfig, error) {
	var c NetConfig
	err := parseOptions(text, func(key, value string) (err error) {
		switch key {
		case "mac":
			c.MAC = value
		case "mtu":
			c.MTU, err = positive(value)
		case "queues":
			c.Queues, err = positive(value)
		default:
			return c.Tap.set(key, value)
		}
		return err
	})
	if err == nil {
		err = c.validate()
	}
	if err != nil {
		return c, fmt.Errorf("network %q: %w", text, err)
	}
	return c, nil
}

// ParseTap reads tap=auto|NAME[,bridge=NAME][,owner=UID] or fd=N: what a card
// has on this host that has come from another one.
func ParseTap(text string) (TapConfig, error) {
	var c TapConfig
	err := parseOptions(text, func(key, value string) error {
		switch key {
		case "mac", "mtu", "queues":
			return errors.New("it comes with the VM")
		}
		return c.set(key, value)
	})
	if err == nil {
		err = c.validate()
	}
	if err != nil {
		return c, fmt.Errorf("network %q: %w", text, err)
	}
	return c, nil
}

// parseOptions hands each KEY=VALUE to set. The first says what is behind the
// card.
func parseOptions(text string, set func(key, value string) error) error {
	for i, option := range strings.Split(text, ",") {
		key, value, ok := strings.Cut(option, "=")
		if !ok || value == "" || i == 0 != (key == "tap" || key == "fd") {
			return fmt.Errorf("option %q: there are, in this order: %s", option, netOptions)
		}
		if err := set(key, value); err != nil {
			return fmt.Errorf("option %q: %w", option, err)
		}
	}
	return nil
}

func (c *TapConfig) set(key, value string) (err error) {
	switch key {
	case "tap":
		if value != "auto" {
			c.Name = value
		}
	case "fd":
		if c.FD, err = positive(value); err == nil && c.FD < 3 {
			err = errors.New("0, 1 and 2 are not passed files")
		}
	case "bridge":
		c.Bridge = value
	case "owner":
		var owner int
		owner, err = strconv.Atoi(value)
		c.Owner = &owner
	default:
		err = fmt.Errorf("unknown; there are %s", netOptions)
	}
	return err
}

func positive(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err == nil && n < 1 {
		err = errors.New("has to be 1 or more")
	}
	return n, err
}

func (c NetConfig) validate() error {
	if c.MAC != "" {
		if _, err := parseMAC(c.MAC); err != nil {
			return err
		}
	}
	switch {
	case c.MTU != 0 && (c.MTU < net.MinMTU || c.MTU > net.MaxMTU):
		return fmt.Errorf("MTU %d: has to be %d to %d", c.MTU, net.MinMTU, net.MaxMTU)
	case c.Queues < 0 || c.Queues > net.MaxPairs:
		return fmt.Errorf("%d queues: has to be 1 to %d", c.Queues, net.MaxPairs)
	case c.Tap.FD != 0 && c.Queues > 1:
		return fmt.Errorf("%d queues: a file descriptor is one", c.Queues)
	}
	return c.Tap.validate()
}

func (c TapConfig) validate() error {
	switch {
	case c.FD < 0:
		return fmt.Errorf("fd %d", c.FD)
	case c.FD != 0 && (c.Bridge != "" || c.Owner != nil):
		return errors.New("bridge and owner are of a tap that is made, and not of a file descriptor")
	case c.Owner != nil && *c.Owner < 0:
		return fmt.Errorf("owner %d: has to be the number of a user", *c.Owner)
	case strings.ContainsAny(c.Name, "/%: \t\n"):
		return fmt.Errorf("tap %q: no name of a network device", c.Name)
	}
	return nil
}

// parseMAC reads an address that one network card can have.
func parseMAC(text string) (mac [6]byte, err error) {
	b, err := stdnet.ParseMAC(text)
	switch {
	case err != nil || len(b) != len(mac):
		return mac, fmt.Errorf("MAC %q: has to be like 02:00:00:12:34:56", text)
	case b[0]&1 != 0:
		return mac, fmt.Errorf("MAC %s: it is that of a group: the first number has to be even", text)
	case [6]byte(b) == mac:
		return mac, fmt.Errorf("MAC %s: it is no address", text)
	}
	return [6]byte(b), nil
}

// defaultMAC is the address of a VM's card if its user gives none: locally
// administered, the same whenever this host starts a VM of this name, and
// another one on another host.
func defaultMAC(vm string, index int) string {
	host, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		name, _ := os.Hostname() // empty where there is none either
		host = []byte(name)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "network card %d of VM %q on host %q", index, vm, host))
	return stdnet.HardwareAddr{2, sum[0], sum[1], sum[2], sum[3], sum[4]}.String()
}
