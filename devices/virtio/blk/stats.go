package blk

import (
	"sync/atomic"
	"time"

	"microvm/devices/virtio"
)

// sorts are what requests are counted by.
const (
	sortRead = iota
	sortWrite
	sortFlush
	sortDiscard
	sortWriteZeroes
	sortOther // the serial number, and what is not supported
	sorts
)

var sortNames = [sorts]string{"read", "write", "flush", "discard", "write-zeroes", "other"}

// counters are virtio.Counts that are being counted.
type counters struct {
	tallies [sorts]virtio.Tally
	errors  atomic.Uint64
	ring    atomic.Uint64 // requests that an io_uring has done
}

func (c *counters) add(kind uint32, bytes uint64, took time.Duration, err error) {
	sort := sortOther
	switch kind {
	case typeIn:
		sort = sortRead
	case typeOut:
		sort = sortWrite
	case typeFlush:
		sort = sortFlush
	case typeDiscard:
		sort = sortDiscard
	case typeWriteZeroes:
		sort = sortWriteZeroes
	}
	if err != nil {
		c.errors.Add(1)
	}
	c.tallies[sort].Add(bytes, max(took, 0), err)
}

// Counts implements virtio.Backend. Bytes of a discard or write-zeroes are
// those discarded or made zero.
func (d *Disk) Counts() virtio.Counts {
	c := virtio.Counts{
		Counters: map[string]uint64{"io_uring": d.counts.ring.Load()},
		Gauges:   map[string]uint64{"size": d.Bytes(), "o_direct": 0},
	}
	if d.image.Direct() {
		c.Gauges["o_direct"] = 1
	}
	for i := range d.counts.tallies {
		c.Requests = append(c.Requests, d.counts.tallies[i].Counts(sortNames[i]))
	}
	return c
}
