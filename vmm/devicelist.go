package vmm

import (
	"fmt"

	"microvm/devices"
	"microvm/devices/virtio"
	"microvm/devices/virtio/balloon"
	"microvm/devices/virtio/blk"
	"microvm/devices/virtio/net"
	"microvm/devices/virtio/rng"
	"microvm/devices/virtio/vconsole"
	"microvm/devices/virtio/vsock"
	"microvm/migration"
)

// devicesOf lists the states that a VM of this config has, and their formats, as
// assemble would make them, without making anything: ids and versions are of a
// kind, so that none is needed to ask for them.
func devicesOf(c Config) []deviceConfig {
	list := []deviceConfig{{kvmState{}.ID(), kvmState{}.Version()}}
	for i := range c.CPUs {
		list = append(list, deviceConfig{fmt.Sprintf("cpu%d", i), cpuState{}.Version()})
	}
	for _, d := range []migration.Snapshotter{
		(*devices.Serial)(nil), (*devices.RTC)(nil), (*devices.I8042)(nil), (*devices.PM)(nil), (*devices.PVPanic)(nil),
	} {
		list = append(list, deviceConfig{d.ID(), d.Version()})
	}
	add := func(id string, kind interface{ Version() uint16 }) {
		list = append(list, deviceConfig{id, virtio.StateVersion(kind)})
	}
	for i := range c.Disks {
		add(fmt.Sprintf("blk%d", i), (*blk.Disk)(nil))
	}
	for i := range c.Nets {
		add(fmt.Sprintf("net%d", i), (*net.Net)(nil))
	}
	if c.RNG {
		add("rng0", (*rng.RNG)(nil))
	}
	if c.Balloon != nil {
		add("balloon0", (*balloon.Balloon)(nil))
	}
	if c.Vsock != nil {
		add("vsock0", (*vsock.Device)(nil))
	}
	if c.VirtioConsole {
		add("console0", (*vconsole.Device)(nil))
	}
	return list
}
