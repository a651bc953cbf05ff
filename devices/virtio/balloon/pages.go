package balloon

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"microvm/devices/virtio"
)

// maxPages is how many pages a request of the inflate or the deflate queue may
// name. Linux sends 256; without a bound a request of 4 GiB would keep the
// device, and whoever resets it, for as long as its driver likes.
const maxPages = 4096

// counters count requests by the role of their queue, and bytes that the host
// got.
type counters struct {
	requests [len(sorts)]virtio.Tally
	given    atomic.Uint64
}

// sorts are what requests are called, by the role of their queue.
var sorts = [...]string{inflate: "inflate", deflate: "deflate", stats: "statistics", reporting: "report"}

// Serve implements virtio.Backend.
func (b *Balloon) Serve(q *virtio.Queue) error {
	if q.Index() >= len(b.roles) {
		return fmt.Errorf("virtqueue %d: a queue of a feature that was not accepted", q.Index())
	}
	role := b.roles[q.Index()]
	if role == stats {
		return b.serveStats(q)
	}
	c := &b.chains[q.Index()]
	for {
		ok, err := q.Next(c)
		if !ok {
			return err
		}
		began, bytes := time.Now(), uint64(0)
		switch role {
		case inflate:
			bytes, err = b.inflate(c)
		case deflate:
			bytes, err = b.deflate(c)
		case reporting:
			bytes, err = b.report(c)
		}
		b.counts.requests[role].Add(bytes, time.Since(began), err)
		if err != nil {
			return err
		}
		if err := q.Push(c, 0); err != nil {
			return err
		}
	}
}

// pages is how many pages a request names: page frame numbers of 32 bits.
func pages(c *virtio.Chain) (int, error) {
	if c.ReadLen%4 != 0 || c.ReadLen > 4*maxPages {
		return 0, fmt.Errorf("%d bytes of page frame numbers: has to be a multiple of 4, at most %d", c.ReadLen, 4*maxPages)
	}
	return int(c.ReadLen / 4), nil
}

// inflate takes the pages that a request names. Neighbours go together, in
// whatever order they are named.
func (b *Balloon) inflate(c *virtio.Chain) (bytes uint64, err error) {
	n, err := pages(c)
	if err != nil {
		return 0, fmt.Errorf("inflate: %w", err)
	}
	if err := c.ReadAt(b.raw[:4*n], 0); err != nil {
		return 0, fmt.Errorf("inflate: read page frame numbers: %w", err)
	}
	pfns := b.pfns[:n]
	for i := range pfns {
		pfns[i] = binary.LittleEndian.Uint32(b.raw[4*i:])
	}
	slices.Sort(pfns)
	for i := 0; i < n; {
		first, last := uint64(pfns[i]), uint64(pfns[i])
		for i++; i < n && uint64(pfns[i]) <= last+1; i++ {
			last = uint64(pfns[i])
		}
		given, err := b.mem.GiveBack(first*PageSize, (last+1-first)*PageSize)
		b.counts.given.Add(given)
		if err != nil {
			return 0, fmt.Errorf("inflate: %w", err)
		}
	}
	return uint64(n) * PageSize, nil
}

// deflate lets the guest have pages again.
func (b *Balloon) deflate(c *virtio.Chain) (bytes uint64, err error) {
	n, err := pages(c)
	if err != nil {
		return 0, fmt.Errorf("deflate: %w", err)
	}
	return uint64(n) * PageSize, nil
}

// report takes free pages, which the driver uses again as soon as it has the
// request back. If it counts on what is in them, and that is not zeros, they
// stay (section 5.5.6.7.2).
func (b *Balloon) report(c *virtio.Chain) (bytes uint64, err error) {
	if b.poisoned {
		return c.WriteLen, nil
	}
	given, err := c.GiveBack()
	b.counts.given.Add(given)
	if err != nil {
		return 0, fmt.Errorf("free pages: %w", err)
	}
	return c.WriteLen, nil
}
