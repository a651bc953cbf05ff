package migration

import (
	"slices"
	"testing"

	"microvm/migration/wire"
)

// pushed claims the first n pages that the pusher would send.
func pushed(t *testing.T, p *pusher, n int) (pages []uint64) {
	t.Helper()
	taken, err := p.take(nil, n*wire.PageSize)
	if err != nil || len(taken) > n {
		t.Fatalf("%d pages where there was room for %d, %v", len(taken), n, err)
	}
	for _, at := range taken {
		pages = append(pages, uint64(at.block)<<32|at.page)
	}
	return pages
}

// upward is n pages from first on.
func upward(first, n uint64) (pages []uint64) {
	for i := range n {
		pages = append(pages, first+i)
	}
	return pages
}

// asked is what the answer to a request does to the account of pages.
func asked(o *outgoing, block int, page uint64) {
	o.claim(block, page)
	o.faults.add(block, page, o.blocks[block].directions(page))
}

// A guest that goes through its memory one way would wait for every page if the
// push went the other.
func TestThePushGoesWhereTheGuestGoes(t *testing.T) {
	const pages, chunk = 1024, pivotChunk / wire.PageSize
	for _, c := range []struct {
		name string
		sent func(o *outgoing) // and asked for
		want []uint64
	}{
		{"nothing is waited for", func(o *outgoing) {}, upward(0, 2*chunk)},
		{"upward", func(o *outgoing) { o.claim(0, 499); asked(o, 0, 500) }, upward(501, 2*chunk)},
		{"downward", func(o *outgoing) { o.claim(0, 501); asked(o, 0, 500) },
			slices.Concat(upward(500-chunk, chunk), upward(500-2*chunk, chunk))},
		{"from nowhere", func(o *outgoing) { asked(o, 0, 500) }, slices.Concat(upward(501, chunk), upward(500-chunk, chunk))},
		{"at the first page", func(o *outgoing) { asked(o, 0, 0) }, upward(1, 2*chunk)},
		{"at the last page", func(o *outgoing) { asked(o, 0, pages-1) },
			slices.Concat(upward(pages-1-chunk, chunk), upward(pages-1-2*chunk, chunk))},
		{"less than a chunk below", func(o *outgoing) { o.claim(0, 4); asked(o, 0, 3) },
			slices.Concat(upward(0, 3), upward(5, 2*chunk-3))},
		{"the newest first, then the one before", func(o *outgoing) {
			for page := range uint64(300) {
				o.claim(0, 100+page)
			}
			asked(o, 0, 400) // upward
			for page := range uint64(pages - 410) {
				o.claim(0, 410+page) // so there are 9 pages above
			}
			asked(o, 1, 0)
		}, slices.Concat([]uint64{1<<32 | 1}, upward(401, 9))},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newTestMachine(t, pages*wire.PageSize, 2*wire.PageSize)
			o, err := newOutgoing(m.blocks)
			if err != nil {
				t.Fatal(err)
			}
			c.sent(o)
			p := &pusher{o: o, pivots: pivots{o: o}}
			if got := pushed(t, p, len(c.want)); !slices.Equal(got, c.want) {
				t.Errorf("pages %v, want %v", got, c.want)
			}
		})
	}
}

// However the faults lie, every page is pushed once.
func TestThePushSendsEveryPageOnce(t *testing.T) {
	const pages = 777
	m := newTestMachine(t, pages*wire.PageSize, 3*wire.PageSize)
	o, err := newOutgoing(m.blocks)
	if err != nil {
		t.Fatal(err)
	}
	p := &pusher{o: o, pivots: pivots{o: o}}
	sent := map[uint64]int{}
	page := uint64(1)
	for {
		for range 3 { // more than are remembered, in the end
			page = page*48271%2147483647 + 1
			if at := page % pages; !o.blocks[0].sent.Test(at) {
				asked(o, 0, at)
				sent[at]++
			}
		}
		got := pushed(t, p, 20)
		if len(got) == 0 {
			break
		}
		for _, at := range got {
			sent[at]++
		}
	}
	if len(sent) != pages+3 || o.claimed.Load() != pages+3 {
		t.Errorf("%d pages sent, %d claimed, of %d", len(sent), o.claimed.Load(), pages+3)
	}
	for at, n := range sent {
		if n != 1 {
			t.Errorf("page %#x was sent %d times", at, n)
		}
	}
}

func TestFindingWhereToGoNextDoesNotAllocate(t *testing.T) {
	m := newTestMachine(t, 4<<20)
	o, err := newOutgoing(m.blocks)
	if err != nil {
		t.Fatal(err)
	}
	p := &pusher{o: o, pivots: pivots{o: o}}
	pages := make([]hostPage, 0, 64)
	at := uint64(0)
	if n := testing.AllocsPerRun(20, func() {
		asked(o, 0, at%1024)
		at += 37
		if _, err := p.take(pages, 16*wire.PageSize); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}
