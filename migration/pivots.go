package migration

import "sync/atomic"

// A page that is waited for says more of what is touched next than any other:
// what lies beside it, on the side where the guest has not been yet. So each
// fault is a pivot, and the push goes out from the newest of them.

// Where the push goes from a pivot. A guest that reads upward faults where the
// page below has been sent and the one above has not; downward the other way
// round. If neither has been, it may have come from anywhere.
const (
	goUp = 1 << iota
	goDown
)

// faults are the pages that were asked for last, for the pusher to find. One
// goroutine, which answers requests, adds to them.
type faults struct {
	count atomic.Uint64
	// last are the newest, in a ring: block in the uppermost byte, directions
	// in the next, host page in the rest.
	last [maxPivots]atomic.Uint64
}

// maxPivots is how many faults are remembered: those of as many vCPUs, each on
// its own way.
const maxPivots = 8

func (f *faults) add(block int, page uint64, directions int) {
	n := f.count.Load()
	f.last[n%maxPivots].Store(uint64(block)<<56 | uint64(directions)<<48 | page)
	f.count.Store(n + 1)
}

// directions tells where to go from a page that is asked for just now.
func (b *outgoingBlock) directions(page uint64) int {
	below := page == 0 || b.sent.Test(page-1)
	above := page+1 == b.pages || b.sent.Test(page+1)
	switch {
	case below && !above:
		return goUp
	case above && !below:
		return goDown
	}
	return goUp | goDown
}

// The push goes from a pivot in chunks, one way after the other, and each chunk
// upward: pages that follow one another are placed in one call of the kernel.
// From one pivot it goes no further than reach before an older one has its
// turn. Both are in bytes.
const (
	pivotChunk = 64 << 10
	pivotReach = 1 << 20
)

// pivot is a fault that the push goes out from.
type pivot struct {
	block      int
	directions int
	// first to end is what is left of the chunk under way. The chunks that
	// follow begin at up or above it, and end at down or below it.
	first, end uint64
	up, down   uint64
	chunks     int // still to be sent from here
}

// next gives a page that is not claimed.
func (v *pivot) next(b *outgoingBlock) (page uint64, ok bool) {
	for {
		if page, ok := b.sent.NextClear(v.first); ok && page < v.end {
			v.first = page + 1
			return page, true
		}
		if v.chunks == 0 || !v.chunk(b) {
			return 0, false
		}
		v.chunks--
	}
}

// chunk begins the next chunk. It reports false if nothing is left either way.
func (v *pivot) chunk(b *outgoingBlock) bool {
	size := b.hostPages(pivotChunk)
	turn := v.directions
	if v.directions == goUp|goDown {
		turn = goUp + v.chunks%2
	}
	for range 2 {
		if turn == goUp {
			if page, ok := b.sent.NextClear(v.up); ok {
				v.first, v.end = page, min(page+size, b.pages)
				v.up = v.end
				return true
			}
			v.up = b.pages
		} else {
			if page, ok := b.sent.PrevClear(v.down); ok {
				v.first, v.end = page+1-min(page+1, size), page+1
				v.down = v.first
				return true
			}
			v.down = 0
		}
		turn ^= goUp | goDown
	}
	return false
}

// pivots chooses pages around recent faults.
type pivots struct {
	o    *outgoing
	seen uint64  // faults that were looked at
	list []pivot // the newest last; at most maxPivots
}

// follow takes in the faults since it was called last.
func (p *pivots) follow() {
	n := p.o.faults.count.Load()
	for p.seen = max(p.seen, n-min(n, maxPivots)); p.seen < n; p.seen++ {
		f := p.o.faults.last[p.seen%maxPivots].Load()
		block, page := int(f>>56), f&(1<<48-1)
		if len(p.list) == maxPivots {
			p.list = append(p.list[:0], p.list[1:]...)
		}
		p.list = append(p.list, pivot{
			block: block, directions: int(f >> 48 & 0xFF), up: page + 1, down: page,
			chunks: pivotReach / pivotChunk,
		})
	}
}

// next gives a page that is not claimed, near the newest fault that has any.
func (p *pivots) next() (at hostPage, ok bool) {
	for len(p.list) > 0 {
		v := &p.list[len(p.list)-1]
		if page, ok := v.next(&p.o.blocks[v.block]); ok {
			return hostPage{block: v.block, page: page}, true
		}
		p.list = p.list[:len(p.list)-1]
	}
	return hostPage{}, false
}
