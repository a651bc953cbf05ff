package balloon

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"microvm/devices/virtio"
)

// statNames are the guest's figures by their tag (section 5.5.6.3, and those
// that Linux has added since).
var statNames = [...]string{
	"swap_in_bytes", "swap_out_bytes", "major_faults", "minor_faults", "free_bytes", "total_bytes", "available_bytes",
	"caches_bytes", "hugetlb_allocations", "hugetlb_failures", "oom_kills", "alloc_stalls", "async_scans",
	"direct_scans", "async_reclaims", "direct_reclaims",
}

const (
	statSize = 10 // tag 2, value 8
	maxStats = 64 // that are looked at

	// statsEvery is how old the guest's figures may get before it is asked
	// for others when somebody looks.
	statsEvery = time.Second
)

// guestStats is the stats queue: the driver gives one buffer with figures,
// and another one each time it has that back.
type guestStats struct {
	// The worker's: where the next chain is taken to, and what is in it.
	spare int
	raw   [maxStats * statSize]byte

	// hold is held while a chain is given back, so that Drain waits for that.
	hold   sync.Mutex
	chains [2]virtio.Chain
	kept   *virtio.Chain // what the driver waits to have back, nil if nothing; guarded by hold
	queue  *virtio.Queue // its; guarded by hold

	mu     sync.Mutex
	values [len(statNames)]uint64 // by tag; guarded by mu
	known  uint32                 // which of them there are, a bit each; guarded by mu
	at     time.Time              // when they came; guarded by mu
	asked  bool                   // others are on their way; guarded by mu
	fresh  chan struct{}          // closed when others have come; guarded by mu
}

func (g *guestStats) init() { g.fresh = make(chan struct{}) }

// serveStats takes the figures that there are, and keeps the buffer.
func (b *Balloon) serveStats(q *virtio.Queue) error {
	g := &b.guest
	for {
		c := &g.chains[g.spare]
		ok, err := q.Next(c)
		if !ok {
			return err
		}
		n := min(c.ReadLen/statSize, maxStats)
		if err := c.ReadAt(g.raw[:n*statSize], 0); err != nil {
			return fmt.Errorf("read the guest's statistics: %w", err)
		}
		g.take(g.raw[:n*statSize])
		b.counts.requests[stats].Add(c.ReadLen, -1, nil)
		if err := g.keep(c, q); err != nil {
			return err
		}
		g.spare = 1 - g.spare
	}
}

// keep makes c the buffer that is kept, and gives the one before back.
func (g *guestStats) keep(c *virtio.Chain, q *virtio.Queue) error {
	g.hold.Lock()
	defer g.hold.Unlock()
	was := g.kept
	g.kept, g.queue = c, q
	if was == nil {
		return nil
	}
	return q.Push(was, 0)
}

// take makes what a buffer says the guest's figures.
func (g *guestStats) take(p []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.known = 0
	for ; len(p) >= statSize; p = p[statSize:] {
		if tag := binary.LittleEndian.Uint16(p); int(tag) < len(statNames) {
			g.values[tag] = binary.LittleEndian.Uint64(p[2:])
			g.known |= 1 << tag
		}
	}
	g.at, g.asked = time.Now(), false
	close(g.fresh)
	g.fresh = make(chan struct{})
}

// ask gives the buffer back, if there is one, so that the driver fills it.
func (g *guestStats) ask() {
	g.hold.Lock()
	defer g.hold.Unlock()
	if g.kept == nil {
		return
	}
	c := g.kept
	g.kept = nil
	g.mu.Lock()
	g.asked = true
	g.mu.Unlock()
	if err := g.queue.Push(c, 0); err != nil {
		g.queue.Fail(err)
	}
}

// Refresh asks the guest for its figures and returns when they have come, or
// ctx has ended, or at once if there is no driver that could answer.
func (b *Balloon) Refresh(ctx context.Context) {
	g := &b.guest
	g.mu.Lock()
	fresh := g.fresh
	g.mu.Unlock()
	g.ask()
	g.mu.Lock()
	asked := g.asked
	g.mu.Unlock()
	if !asked {
		return
	}
	select {
	case <-fresh:
	case <-ctx.Done():
	}
}

// Drain gives back the buffer that is kept: the driver fills another one, for
// whoever has the device then.
func (b *Balloon) Drain() {
	b.guest.ask()
	b.guest.mu.Lock()
	defer b.guest.mu.Unlock()
	b.guest.asked = false // who knows when
}

// Stats counts, in bytes, what the device has done since the VM came to this
// host.
type Stats struct {
	Target uint64 `json:"target_bytes"` // what the balloon is to hold
	Actual uint64 `json:"actual_bytes"` // and holds, by the driver's word
	// Inflated, Deflated and Reported are what the driver has put into the
	// balloon, taken out of it, and said to be free; GivenBack is what the
	// host got of that.
	Inflated  uint64 `json:"inflated_bytes"`
	Deflated  uint64 `json:"deflated_bytes"`
	Reported  uint64 `json:"reported_bytes"`
	GivenBack uint64 `json:"given_back_bytes"`
	// Guest are the guest's own figures, as it gave them so long ago.
	Guest   map[string]uint64 `json:"guest,omitempty"`
	GuestAt time.Duration     `json:"guest_age_ns,omitempty"`
}

// Ask has the guest give its figures anew if they are old, and does not wait
// for that.
func (b *Balloon) Ask() {
	b.guest.mu.Lock()
	old := !b.guest.asked && time.Since(b.guest.at) > statsEvery
	b.guest.mu.Unlock()
	if old {
		go b.guest.ask() // it may wait for a page of the guest's
	}
}

// Counts has the guest's figures among its gauges, as it gave them last.
func (b *Balloon) Counts() virtio.Counts {
	s := b.Stats()
	c := virtio.Counts{
		Counters: map[string]uint64{"given_back_bytes": s.GivenBack},
		Gauges:   map[string]uint64{"target_bytes": s.Target, "actual_bytes": s.Actual},
	}
	for i := range sorts {
		c.Requests = append(c.Requests, b.counts.requests[i].Counts(sorts[i]))
	}
	for name, v := range s.Guest {
		c.Gauges["guest_"+name] = v
	}
	return c
}

// Stats can be read at any time.
func (b *Balloon) Stats() Stats {
	s := Stats{
		Inflated: b.bytes(inflate), Deflated: b.bytes(deflate), Reported: b.bytes(reporting),
		GivenBack: b.counts.given.Load(),
	}
	s.Target, s.Actual = b.Size()
	g := &b.guest
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.at.IsZero() {
		return s
	}
	s.GuestAt, s.Guest = time.Since(g.at), map[string]uint64{}
	for tag, name := range statNames {
		if g.known&(1<<tag) != 0 {
			s.Guest[name] = g.values[tag]
		}
	}
	return s
}

func (b *Balloon) bytes(r role) uint64 { return b.counts.requests[r].Counts("").Bytes }
