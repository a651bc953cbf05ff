package migration

import (
	"bytes"
	"net"
	"testing"
	"time"

	"microvm/migration/wire"
)

// sink is a connection that takes everything.
type sink struct {
	net.Conn
	bytes int
}

func (s *sink) Write(b []byte) (int, error) { s.bytes += len(b); return len(b), nil }

// armed gives a pager on a machine's memory, with its requests going to a sink.
func armed(t *testing.T, sizes ...uint64) (*pager, *sink) {
	t.Helper()
	m := newTestMachine(t, sizes...)
	to := &sink{}
	back := newReturnPath(to)
	back.blocks = m.blocks
	p, err := newPager(m.blocks, nil, func(pages []pageRequest) bool {
		if err := back.request(pages); err != nil {
			t.Error(err)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	p.listening.Store(true)
	t.Cleanup(func() {
		select {
		case <-p.done: // released by the test
		default:
			p.abort(errTest)
		}
	})
	return p, to
}

// A page fault that waits for the garbage collector would be a guest that does.
func TestTheFaultPathDoesNotAllocate(t *testing.T) {
	const runs = 200
	p, to := armed(t, 4096, 4<<20)
	base := uint64(p.blocks[1].Addr())
	contents := bytes.Repeat([]byte{7}, wire.PageSize)
	one := make([]pageRequest, 1)
	page := uint64(0)
	n := testing.AllocsPerRun(runs, func() {
		block, at, ok := p.find(base + page*wire.PageSize + 123)
		if !ok || block != 1 || at != page {
			t.Fatalf("page %d is found in block %d, page %d, %v", page, block, at, ok)
		}
		now := time.Now()
		if !p.expect(block, at, cpu0, now) {
			t.Fatal("not to be asked for")
		}
		one[0] = pageRequest{block, at}
		p.request(one)
		p.waits.asked(one, now, time.Now())
		if p.expect(block, at, cpu1, time.Now()) {
			t.Fatal("asked for twice")
		}
		if err := p.place(block, page, 1, contents); err != nil {
			t.Fatal(err)
		}
		page++
	})
	if n != 0 {
		t.Errorf("%v allocations a fault", n)
	}
	if got, want := p.requested.Load(), page; got != want || to.bytes == 0 {
		t.Errorf("%d requests in %d bytes, want %d", got, to.bytes, want)
	}
	if got := p.waits.latency.count.Load(); got != 2*page {
		t.Errorf("%d waits, want %d", got, 2*page)
	}
	if asked, replied := p.waits.request.count.Load(), p.waits.reply.count.Load(); asked != page || replied != page {
		t.Errorf("%d requests and %d replies were timed, want %d", asked, replied, page)
	}
}

func TestAPageThatIsInPlaceIsNotAskedFor(t *testing.T) {
	p, to := armed(t, 1<<20)
	if err := p.place(0, 3, 1, nil); err != nil {
		t.Fatal(err)
	}
	p.fetch(0, 3)
	if to.bytes != 0 || p.requested.Load() != 0 {
		t.Errorf("%d requests in %d bytes", p.requested.Load(), to.bytes)
	}
	p.waits.pending(func(_ int, page uint64) { t.Errorf("page %d is waited for", page) })
}

// What comes from the wire is checked where memory is written.
func TestPlaceRefusesWhatIsNotThere(t *testing.T) {
	p, _ := armed(t, 1<<20, 4096)
	for _, c := range []struct {
		name         string
		block        int
		first, count uint64
	}{
		{"block", 2, 0, 1},
		{"first page", 0, 256, 1},
		{"last page", 0, 255, 2},
		{"count past 64 bits", 0, 1, 1<<64 - 1},
		{"first past 64 bits", 1, 1<<64 - 1, 2},
	} {
		if err := p.place(c.block, c.first, c.count, nil); err == nil {
			t.Errorf("%s: pages [%d, +%d) of block %d were placed", c.name, c.first, c.count, c.block)
		}
	}
	if got, want := p.left.Load(), int64(257); got != want {
		t.Errorf("%d pages left, want %d", got, want)
	}
}

// A page sent twice is placed once, and the first stays.
func TestAPagePlacedTwiceCountsOnce(t *testing.T) {
	p, _ := armed(t, 16*wire.PageSize)
	if err := p.place(0, 4, 2, bytes.Repeat([]byte{1}, 2*wire.PageSize)); err != nil {
		t.Fatal(err)
	}
	if err := p.place(0, 0, 16, bytes.Repeat([]byte{2}, 16*wire.PageSize)); err != nil {
		t.Fatal(err)
	}
	if got := p.left.Load(); got != 0 {
		t.Errorf("%d pages left", got)
	}
	<-p.done
	if err := p.release(); err != nil {
		t.Fatal(err)
	}
	mem, err := p.blocks[0].View(0, 16*wire.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	for page := range 16 {
		want := byte(2)
		if page == 4 || page == 5 {
			want = 1
		}
		if got := mem[page*wire.PageSize+17]; got != want {
			t.Errorf("page %d holds %d, want %d", page, got, want)
		}
	}
}
