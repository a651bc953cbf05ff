package vmm

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"microvm/devices/tap"
	"microvm/devices/virtio/net"
)

// A netCard is a virtio network device of a VM, and what is behind it.
type netCard struct {
	*virtioDevice
	net *net.Net
	tap *tap.Tap
}

// addNets makes the network cards, and fills in what their user left open: the
// other host has to have the same.
func (vm *VM) addNets() error {
	vm.config.Nets = slices.Clone(vm.config.Nets)
	for i := range vm.config.Nets {
		c := &vm.config.Nets[i]
		if c.MAC == "" {
			c.MAC = defaultMAC(vm.config.Name, i)
		}
		card, err := vm.addNet(fmt.Sprintf("net%d", i), c)
		if err != nil {
			return fmt.Errorf("network card %d: %w", i, err)
		}
		vm.nets = append(vm.nets, card)
		vm.log.Info("network card", "id", card.mmio.ID(), "tap", c.Tap.Name, "mac", c.MAC, "mtu", c.MTU)
	}
	return nil
}

func (vm *VM) addNet(id string, c *NetConfig) (*netCard, error) {
	mac, err := parseMAC(c.MAC)
	if err != nil {
		return nil, err
	}
	c.Queues = max(c.Queues, 1)
	host, err := c.open()
	if err != nil {
		return nil, err
	}
	c.Tap.Name = host.Name()
	switch mtu := host.MTU(); {
	case c.MTU == 0 && mtu == 0:
		c.MTU = net.DefaultMTU
	case c.MTU == 0:
		c.MTU = min(mtu, net.MaxMTU)
	case mtu != 0 && mtu < c.MTU:
		return nil, errors.Join(fmt.Errorf("tap %s has MTU %d, and the guest's card %d: ip link set %s mtu %d", host.Name(), mtu, c.MTU, host.Name(), c.MTU), host.Close())
	}
	backend, err := net.NewNet(host, net.Options{MAC: mac, MTU: c.MTU, Pairs: c.Queues, Log: vm.log.With("device", id)})
	if err != nil {
		return nil, errors.Join(err, host.Close())
	}
	device, err := vm.addVirtio(id, backend)
	if err != nil {
		return nil, err
	}
	return &netCard{virtioDevice: device, net: backend, tap: host}, nil
}

// open attaches to the host's side.
func (c *NetConfig) open() (*tap.Tap, error) {
	if c.Tap.FD != 0 {
		return tap.Adopt(c.Tap.FD)
	}
	return tap.Open(c.tapOptions())
}

// placeNets gives an incoming VM's network cards their side on this host. Only
// what this host's user named is ever used: the source is a stranger.
func placeNets(nets []NetConfig, here []TapConfig, log *slog.Logger) error {
	if len(nets) != len(here) {
		var theirs []string
		for _, n := range nets {
			theirs = append(theirs, n.Tap.Name)
		}
		return fmt.Errorf("the VM has %d network cards (at the source, on tap %q), and this host was told of %d: say --net tap=auto|NAME[,bridge=NAME] for each, in this order",
			len(nets), theirs, len(here))
	}
	for i := range nets {
		log.Debug("network card", "at the source", nets[i].Tap, "here", here[i])
		nets[i].Tap = here[i]
		if err := nets[i].validate(); err != nil {
			return fmt.Errorf("network card %d: %w", i, err)
		}
	}
	return nil
}

// leaveNets has the cards' host sides be silent: another host is to own the
// guest. A bridge whose port has no carrier forgets at once what it learned
// there.
func (vm *VM) leaveNets() {
	for _, n := range vm.nets {
		n.net.Silence()
		n.carry(false, vm.log)
	}
}

// returnNets says to all networks that the guest is here: it has come, or come
// back.
func (vm *VM) returnNets() {
	for _, n := range vm.nets {
		n.carry(true, vm.log)
		n.net.Announce()
	}
}

// carry is done where the kernel can, since Linux 5.0.
func (n *netCard) carry(on bool, log *slog.Logger) {
	if err := n.tap.SetCarrier(on); err != nil {
		log.Warn("the tap's carrier cannot be set", "id", n.mmio.ID(), "err", err)
	}
}

// askNets has drivers that can announce the guest too, if it has moved. The
// devices are released.
func (vm *VM) askNets() {
	for _, n := range vm.nets {
		if n.net.AskGuest() {
			n.mmio.Device().ConfigChanged()
		}
	}
}
