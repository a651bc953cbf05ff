// Package rng is the virtio entropy device (VIRTIO 1.2, section 5.4): it fills
// what the driver offers with bytes of the host's getrandom(2).
//
// A guest can ask for as many as it likes, and making them is work of the
// host's CPUs. So a request gets 4 KiB at most, whatever room it has, and the
// device rests after each for as long as it takes to keep to 4 MiB a second and
// 4096 requests a second, which is about one hundredth of a CPU. A rest is
// about a millisecond, and nobody but this driver waits for it.
package rng

import (
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"microvm/devices/virtio"
)

const (
	// queueSize is how many requests a driver may have waiting.
	queueSize = 64
	// most is how many bytes a request is given.
	most = 4096
	// rate is in bytes a second; a request counts for leastCost at least.
	rate      = 4 << 20
	leastCost = 1024
	// slack is how far ahead of the rate the device may be before it rests.
	slack = time.Millisecond
)

// An RNG is a virtio.Backend.
type RNG struct {
	reads virtio.Tally
	rests atomic.Uint64

	// The worker's.
	chain  virtio.Chain
	buffer [most]byte
	// paid is until when the rate has been used up.
	paid time.Time
}

// New makes the device.
func New() *RNG { return &RNG{} }

// Type implements virtio.Backend, as does all that follows.
func (*RNG) Type() uint32 { return virtio.IDEntropy }

// Features has none: the kind has no features.
func (*RNG) Features() uint64 { return 0 }

// QueueSizes is of the only queue, requestq.
func (*RNG) QueueSizes() []uint16 { return []uint16{queueSize} }

// ReadConfig has nothing to read.
func (*RNG) ReadConfig(p []byte, _ uint64) { clear(p) }

// WriteConfig does nothing.
func (*RNG) WriteConfig([]byte, uint64) {}

// Start needs to know nothing.
func (*RNG) Start(uint64) {}

// Serve fills the requests that there are, one by one, no faster than the rate.
func (r *RNG) Serve(q *virtio.Queue) error {
	for {
		ok, err := q.Next(&r.chain)
		if !ok {
			return err
		}
		began := time.Now()
		written, err := r.fill()
		if err != nil {
			return err
		}
		r.reads.Add(uint64(written), time.Since(began), nil)
		if err := q.Push(&r.chain, written); err != nil {
			return err
		}
		r.rest(written)
	}
}

// fill answers the request that was taken.
func (r *RNG) fill() (written uint32, err error) {
	if r.chain.WriteLen == 0 {
		return 0, errors.New("a request without room for what it asks for")
	}
	p := r.buffer[:min(r.chain.WriteLen, most)]
	rand.Read(p) // never fails
	if err := r.chain.WriteAt(p, 0); err != nil {
		return 0, fmt.Errorf("write random bytes: %w", err)
	}
	clear(p) // they are the guest's alone
	return uint32(len(p)), nil
}

// rest waits until the rate allows for what was given.
func (r *RNG) rest(written uint32) {
	now := time.Now()
	if r.paid.Before(now) {
		r.paid = now
	}
	r.paid = r.paid.Add(time.Duration(max(written, leastCost)) * time.Second / rate)
	if ahead := r.paid.Sub(now); ahead > slack {
		r.rests.Add(1)
		time.Sleep(ahead)
	}
}

// Drain has nothing to wait for: no chain is kept.
func (*RNG) Drain() {}

// Version is that of SaveState's format.
func (*RNG) Version() uint16 { return 1 }

// SaveState writes nothing: there is no state but the queue.
func (*RNG) SaveState() ([]byte, error) { return nil, nil }

// LoadState takes nothing.
func (*RNG) LoadState(b []byte) error {
	if len(b) != 0 {
		return fmt.Errorf("state: %d bytes, an entropy device has none", len(b))
	}
	return nil
}

// Counts has, besides the requests, how often the driver had to wait since it
// asked for too much.
func (r *RNG) Counts() virtio.Counts {
	return virtio.Counts{
		Requests: []virtio.RequestCounts{r.reads.Counts("read")},
		Counters: map[string]uint64{"rests": r.rests.Load()},
	}
}

// Close has nothing to free.
func (*RNG) Close() error { return nil }
