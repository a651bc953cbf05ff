package virtio

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// latencyBuckets is how many powers of two of microseconds are told apart: the
// last bucket holds all from 2^22 us (4 s) on.
const latencyBuckets = 24

// Counts is what a device has done since the VM came to this host, in one form
// for every kind of device.
type Counts struct {
	// Requests are counted apart by what they are: "read" and "write", or
	// "receive" and "transmit". Their order is that of showing them.
	Requests []RequestCounts `json:"requests"`
	// Counters are of what only some device counts. They only grow.
	Counters map[string]uint64 `json:"counters,omitempty"`
	// Gauges are values as they are now, such as a disk's size.
	Gauges map[string]uint64 `json:"gauges,omitempty"`
}

// RequestCounts counts the requests of one sort.
type RequestCounts struct {
	Sort     string `json:"sort"`
	Requests uint64 `json:"requests"`
	// Errors are those of the requests that failed, Bytes what the others
	// carried.
	Errors uint64 `json:"errors"`
	Bytes  uint64 `json:"bytes"`
	// Latency counts requests by how long they took from being taken from the
	// queue to being done: bucket 0 less than 1 us, bucket i from 2^(i-1) to
	// less than 2^i us. It is empty where that says nothing.
	Latency []uint64 `json:"latency_log2_us,omitempty"`
	// TookNS is how long these took in all.
	TookNS uint64 `json:"took_ns"`
}

// Of gives the counts of one sort of request, zeros if there is none.
func (c Counts) Of(sort string) RequestCounts {
	for _, r := range c.Requests {
		if r.Sort == sort {
			return r
		}
	}
	return RequestCounts{Sort: sort}
}

// A Tally is RequestCounts that are being counted, by any goroutines.
type Tally struct {
	requests, errors, bytes atomic.Uint64
	took                    atomic.Uint64 // nanoseconds
	latency                 [latencyBuckets]atomic.Uint64
}

// Add counts a request that took so long, or one whose time says nothing if
// took is negative.
func (t *Tally) Add(bytes uint64, took time.Duration, err error) {
	t.requests.Add(1)
	if err != nil {
		t.errors.Add(1)
	} else {
		t.bytes.Add(bytes)
	}
	if took >= 0 {
		t.took.Add(uint64(took))
		t.latency[min(bits.Len64(uint64(took/time.Microsecond)), latencyBuckets-1)].Add(1)
	}
}

// Counts gives what was counted until now. It can be called at any time.
func (t *Tally) Counts(sort string) RequestCounts {
	c := RequestCounts{Sort: sort, Requests: t.requests.Load(), Errors: t.errors.Load(), Bytes: t.bytes.Load(), TookNS: t.took.Load()}
	for i := range t.latency {
		if n := t.latency[i].Load(); n > 0 {
			if c.Latency == nil {
				c.Latency = make([]uint64, latencyBuckets)
			}
			c.Latency[i] = n
		}
	}
	return c
}
