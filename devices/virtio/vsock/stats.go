package vsock

import (
	"sync/atomic"

	"microvm/devices/virtio"
)

// counters are what a device has done since the VM came to this host.
type counters struct {
	fromGuest, fromHost  atomic.Uint64 // connections that were made
	refused              atomic.Uint64 // attempts that came to nothing
	resets               atomic.Uint64 // connections that ended without being closed
	rxPackets, txPackets atomic.Uint64 // to and from the guest
	rxBytes, txBytes     atomic.Uint64 // of payload
	errors               atomic.Uint64 // packets that broke the rules
	unanswered           atomic.Uint64 // packets of no connection that got no answer
	untaken              atomic.Uint64 // payload bytes that the host's programs did not take
}

// Counts has, besides packets and their payload, what became of connections; and
// how many there are now, those that are being made and those that the host has
// not taken all of included.
func (d *Device) Counts() virtio.Counts {
	c := &d.counts
	return virtio.Counts{
		Requests: []virtio.RequestCounts{
			{Sort: "receive", Requests: c.rxPackets.Load(), Bytes: c.rxBytes.Load()},
			{Sort: "transmit", Requests: c.txPackets.Load(), Bytes: c.txBytes.Load(), Errors: c.errors.Load()},
		},
		Counters: map[string]uint64{
			"from_guest": c.fromGuest.Load(), "from_host": c.fromHost.Load(), "refused": c.refused.Load(),
			"resets": c.resets.Load(), "unanswered": c.unanswered.Load(), "untaken_bytes": c.untaken.Load(),
		},
		Gauges: map[string]uint64{"connections": uint64(d.open())},
	}
}

// open is how many slots are taken.
func (d *Device) open() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.slots
}
