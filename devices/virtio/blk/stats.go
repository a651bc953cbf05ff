package blk

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// latencyBuckets is how many powers of two of microseconds are told apart: the
// last bucket holds all from 2^22 us (4 s) on.
const latencyBuckets = 24

// Stats counts what a disk has done since the VM came to this host.
type Stats struct {
	Reads        uint64 `json:"reads"`
	Writes       uint64 `json:"writes"`
	Flushes      uint64 `json:"flushes"`
	Discards     uint64 `json:"discards"`
	WriteZeroes  uint64 `json:"write_zeroes"`
	Others       uint64 `json:"others"`   // the serial number, and what is not supported
	Errors       uint64 `json:"errors"`   // of the requests above, those that failed
	Ring         uint64 `json:"io_uring"` // and those that an io_uring did
	ReadBytes    uint64 `json:"read_bytes"`
	WrittenBytes uint64 `json:"written_bytes"`
	// ClearedBytes were discarded or made zero.
	ClearedBytes uint64 `json:"cleared_bytes"`
	// Latency counts requests by how long they took from being taken from
	// the queue to being done: bucket 0 less than 1 us, bucket i from 2^(i-1)
	// to less than 2^i us.
	Latency [latencyBuckets]uint64 `json:"latency_log2_us"`
}

// counters are Stats that are being counted.
type counters struct {
	reads, writes, flushes, discards, writeZeroes, others, errors, ring atomic.Uint64
	readBytes, writtenBytes, clearedBytes                               atomic.Uint64
	latency                                                             [latencyBuckets]atomic.Uint64
}

func (c *counters) add(kind uint32, bytes uint64, took time.Duration, err error) {
	count, data := &c.others, (*atomic.Uint64)(nil)
	switch kind {
	case typeIn:
		count, data = &c.reads, &c.readBytes
	case typeOut:
		count, data = &c.writes, &c.writtenBytes
	case typeFlush:
		count = &c.flushes
	case typeDiscard:
		count, data = &c.discards, &c.clearedBytes
	case typeWriteZeroes:
		count, data = &c.writeZeroes, &c.clearedBytes
	}
	count.Add(1)
	switch {
	case err != nil:
		c.errors.Add(1)
	case data != nil:
		data.Add(bytes)
	}
	bucket := bits.Len64(uint64(max(took, 0) / time.Microsecond))
	c.latency[min(bucket, latencyBuckets-1)].Add(1)
}

// Counts implements virtio.Backend.
func (d *Disk) Counts() any { return d.Stats() }

// Stats can be read at any time.
func (d *Disk) Stats() Stats {
	c := &d.counts
	s := Stats{
		Reads: c.reads.Load(), Writes: c.writes.Load(), Flushes: c.flushes.Load(), Discards: c.discards.Load(),
		WriteZeroes: c.writeZeroes.Load(), Others: c.others.Load(), Errors: c.errors.Load(), Ring: c.ring.Load(),
		ReadBytes: c.readBytes.Load(), WrittenBytes: c.writtenBytes.Load(), ClearedBytes: c.clearedBytes.Load(),
	}
	for i := range c.latency {
		s.Latency[i] = c.latency[i].Load()
	}
	return s
}
