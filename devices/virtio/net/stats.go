package net

import (
	"sync/atomic"

	"microvm/devices/virtio"
)

// A direction counts frames that go one way through one pair of queues. Bytes
// are without the virtio header; errors are frames that were malformed, or could
// not be read or written.
type direction struct {
	virtio.Tally
	// drops are frames that the driver had no room for or that came before
	// it, or, of those sent, that the tap was not able to take.
	drops atomic.Uint64
}

// sorts of requests, as Counts has them.
const (
	sortReceive  = "receive" // by the guest
	sortTransmit = "transmit"
)

// Counts implements virtio.Backend: "receive" and "transmit"; counters
// "receive_drops", "transmit_drops" and "announcements" (by the host, of where
// the guest is); gauge "pairs", how many pairs of queues the driver uses.
func (n *Net) Counts() virtio.Counts {
	in, out := virtio.RequestCounts{Sort: sortReceive}, virtio.RequestCounts{Sort: sortTransmit}
	var inDrops, outDrops uint64
	for i := range n.receivers {
		r, t := &n.receivers[i].counts, &n.transmitters[i].counts
		add(&in, r.Tally.Counts(""))
		add(&out, t.Tally.Counts(""))
		inDrops += r.drops.Load()
		outDrops += t.drops.Load()
	}
	return virtio.Counts{
		Requests: []virtio.RequestCounts{in, out},
		Counters: map[string]uint64{"receive_drops": inDrops, "transmit_drops": outDrops, "announcements": n.announced.Load()},
		Gauges:   map[string]uint64{"pairs": uint64(n.pairs())},
	}
}

func add(sum *virtio.RequestCounts, c virtio.RequestCounts) {
	sum.Requests += c.Requests
	sum.Errors += c.Errors
	sum.Bytes += c.Bytes
}
