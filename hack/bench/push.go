package main

import (
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
)

// linkRate is the rate of the link that push makes of the loopback, in bytes a second: slow enough for the lab's CPU,
// which is emulated.
const linkRate = 5e6

// push is the rate at which postcopy moves memory over a link with a long round trip, as a share of the
// rate that the link is given.
type push struct {
	rtt int // of the link, in milliseconds
	mem int // of the guest, in MiB
}

func (push) lab() bool { return true }

func (p push) sample(b *bench, s side) (figures, error) {
	restore, err := slowLoopback(time.Duration(p.rtt) * time.Millisecond)
	if err != nil {
		return nil, err
	}
	defer restore()
	f, err := b.migrate(migration{mode: "postcopy", cpus: 1, mem: p.mem}, s)
	if err != nil {
		return nil, err
	}
	f["share"] = f["wire"] / (f["postcopy"] / 1e9) / linkRate
	return f, nil
}

// slowLoopback gives the loopback a round trip and a rate.
func slowLoopback(rtt time.Duration) (restore func(), err error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("loopback: %w", err)
	}
	attrs := netlink.QdiscAttrs{LinkIndex: lo.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
	// Every packet passes once in each direction. The limit is in packets, up to 64 KiB each.
	netem := netlink.NewNetem(attrs, netlink.NetemQdiscAttrs{Latency: uint32(rtt.Microseconds() / 2), Limit: 100000, Rate64: linkRate})
	if err := netlink.QdiscReplace(netem); err != nil {
		return nil, fmt.Errorf("loopback: netem: %w; the kernel needs the module sch_netem", err)
	}
	return func() { _ = netlink.QdiscDel(netem) }, nil
}
