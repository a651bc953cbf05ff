package memslot

import (
	"errors"
	"slices"
	"sync"
	"testing"
)

// arrive puts a page in place the way a pager does, as far as the accessors
// can tell: contents first, then the bit.
func arrive(b *Block, page uint64, fill byte) {
	p := b.mapping.mem[page*b.pageSize : (page+1)*b.pageSize]
	for i := range p {
		p[i] = fill
	}
	b.MarkPresent(page, 1)
}

// pager collects what is asked for.
type pager struct {
	mu    sync.Mutex
	asked []uint64
	// more gets a value for each page asked for.
	more chan uint64
}

func newPager(pages uint64) *pager { return &pager{more: make(chan uint64, pages)} }

func (p *pager) fetch(page uint64) {
	p.mu.Lock()
	p.asked = append(p.asked, page)
	p.mu.Unlock()
	p.more <- page
}

func expect(t testing.TB, b *Block, fetch func(uint64)) {
	t.Helper()
	if err := b.Expect(fetch); err != nil {
		t.Fatal(err)
	}
}

// readPage starts a read of the first bytes of a page and returns its result.
func readPage(b *Block, page uint64) <-chan error {
	done := make(chan error, 1)
	go func() {
		p := make([]byte, 8)
		err := b.read(p, page*b.pageSize)
		if err == nil && p[0] != byte(page) {
			err = errors.New("read before the page had come")
		}
		done <- err
	}()
	return done
}

func TestPresentOutsideMigration(t *testing.T) {
	b := newBlock(t, 70, BlockOptions{})
	if !b.Present(0) || !b.Present(69) || b.Present(70) {
		t.Error("without a migration every page is present, and only those")
	}
	if page, ok := b.NextAbsent(0); ok {
		t.Errorf("page %d is absent", page)
	}
	if err := b.Discard(0, 1); err == nil {
		t.Error("a page was discarded that nobody would bring back")
	}
}

func TestAbsentPageIsFetchedOnceForAll(t *testing.T) {
	b := newBlock(t, 4, BlockOptions{})
	p := newPager(4)
	expect(t, b, p.fetch)
	var reads []<-chan error
	for range 8 {
		reads = append(reads, readPage(b, 2))
	}
	<-p.more
	arrive(b, 2, 2)
	for _, r := range reads {
		if err := <-r; err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(p.asked, []uint64{2}) {
		t.Errorf("asked for %v, want page 2 once", p.asked)
	}
}

func TestMarkPresentWakesOnlyItsPages(t *testing.T) {
	for _, n := range []uint64{1, 60} { // fewer and more than there are waiters
		b := newBlock(t, 70, BlockOptions{})
		p := newPager(70)
		expect(t, b, p.fetch)
		first, last := readPage(b, 1), readPage(b, 69)
		<-p.more
		<-p.more
		for page := range n {
			p := b.mapping.mem[(page+1)*b.pageSize:]
			p[0] = byte(page + 1)
		}
		b.MarkPresent(1, n)
		if err := <-first; err != nil {
			t.Error(err)
		}
		b.presence.mu.Lock()
		if len(b.presence.asked) != 1 || b.presence.asked[69] == nil || b.presence.waiting.Load() != 1 {
			t.Errorf("page 69 has not come, but waited for is %v (%d)", b.presence.asked, b.presence.waiting.Load())
		}
		b.presence.mu.Unlock()
		arrive(b, 69, 69)
		if err := <-last; err != nil {
			t.Error(err)
		}
	}
}

// TestLongAccessAsksForAllPagesAtOnce: else a buffer of n pages would cost n
// round trips.
func TestLongAccessAsksForAllPagesAtOnce(t *testing.T) {
	const pages = 20
	b := newBlock(t, pages+2, BlockOptions{})
	p := newPager(pages + 2)
	expect(t, b, p.fetch)
	arrive(b, 5, 5)
	done := make(chan error, 1)
	go func() { done <- b.write(make([]byte, (pages-1)*hostPage), hostPage+hostPage/2) }()
	for range pages - 1 { // 1 to 20, without 5
		<-p.more
	}
	for page := uint64(pages); page >= 1; page-- {
		arrive(b, page, 0)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	slices.Sort(p.asked)
	if len(p.asked) != pages-1 || p.asked[0] != 1 || p.asked[pages-2] != pages || slices.Contains(p.asked, 5) {
		t.Errorf("asked for %v", p.asked)
	}
}

func TestVeryLongAccess(t *testing.T) {
	const pages = 3*askWindow + 7
	b := newBlock(t, pages, BlockOptions{})
	expect(t, b, func(page uint64) { arrive(b, page, byte(page)) })
	p := make([]byte, pages*hostPage)
	if err := b.read(p, 0); err != nil {
		t.Fatal(err)
	}
	for page := range pages {
		if p[page*int(hostPage)] != byte(page) {
			t.Fatalf("page %d reads %d", page, p[page*int(hostPage)])
		}
	}
	if err := b.Complete(); err != nil {
		t.Error(err)
	}
}

func TestFailWakesAllAndStays(t *testing.T) {
	b := newBlock(t, 4, BlockOptions{})
	p := newPager(4)
	expect(t, b, p.fetch)
	arrive(b, 3, 3)
	reads := []<-chan error{readPage(b, 0), readPage(b, 1), readPage(b, 1)}
	<-p.more
	<-p.more
	lost := errors.New("source is gone")
	b.Fail(lost)
	b.Fail(errors.New("a later one"))
	for _, r := range append(reads, readPage(b, 0), readPage(b, 2)) {
		if err := <-r; !errors.Is(err, lost) {
			t.Errorf("absent page: %v, want %v", err, lost)
		}
	}
	if err := <-readPage(b, 3); err != nil {
		t.Errorf("present page: %v", err)
	}
	if len(b.presence.asked) != 0 {
		t.Errorf("still waited for: %v", b.presence.asked)
	}
	// A new migration starts afresh.
	expect(t, b, p.fetch)
	read := readPage(b, 2)
	<-p.more
	arrive(b, 2, 2)
	if err := <-read; err != nil {
		t.Errorf("after a new Expect: %v", err)
	}
}

func TestFailWithoutReasonStillFails(t *testing.T) {
	b := newBlock(t, 1, BlockOptions{})
	expect(t, b, func(uint64) {})
	b.Fail(nil)
	if err := <-readPage(b, 0); !errors.Is(err, ErrAbsent) {
		t.Errorf("read: %v", err)
	}
}

func TestCloseUnblocks(t *testing.T) {
	b := newBlock(t, 1, BlockOptions{})
	p := newPager(1)
	expect(t, b, p.fetch)
	read := readPage(b, 0)
	<-p.more
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := <-read; !errors.Is(err, ErrClosed) {
		t.Errorf("read: %v", err)
	}
}

func TestComplete(t *testing.T) {
	b := newBlock(t, 3, BlockOptions{})
	expect(t, b, func(uint64) {})
	arrive(b, 0, 0)
	arrive(b, 2, 2)
	if err := b.Complete(); !errors.Is(err, ErrAbsent) {
		t.Errorf("complete without page 1: %v", err)
	}
	if _, err := b.View(0, 1); !errors.Is(err, ErrAbsent) {
		t.Errorf("view while page 1 is absent: %v", err)
	}
	arrive(b, 1, 1)
	if err := b.Complete(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.View(0, b.Size()); err != nil {
		t.Errorf("view after completion: %v", err)
	}
}

func TestDiscard(t *testing.T) {
	eachBacking(t, func(t *testing.T, o BlockOptions) {
		b := newBlock(t, 4, o)
		expect(t, b, func(page uint64) { b.MarkPresent(page, 1) })
		for page := range uint64(4) {
			arrive(b, page, 0xee)
		}
		if err := b.Discard(1, 2); err != nil {
			t.Fatal(err)
		}
		for page, want := range []bool{true, false, false, true} {
			if b.Present(uint64(page)) != want {
				t.Errorf("page %d: present %v, want %v", page, !want, want)
			}
		}
		for page, want := range []byte{0xee, 0, 0, 0xee} {
			p := make([]byte, 1)
			if err := b.read(p, uint64(page)*b.pageSize); err != nil {
				t.Fatal(err)
			}
			if p[0] != want {
				t.Errorf("page %d reads %#x, want %#x", page, p[0], want)
			}
		}
		for _, c := range []struct{ first, n uint64 }{{0, 5}, {4, 1}, {^uint64(0), 2}, {1, ^uint64(0)}} {
			if err := b.Discard(c.first, c.n); !errors.Is(err, ErrOutOfRange) {
				t.Errorf("discard of [%d, +%d): %v", c.first, c.n, err)
			}
		}
		if err := b.Discard(2, 0); err != nil {
			t.Errorf("discard of nothing: %v", err)
		}
	})
}

// TestExpectDropsWhatWasThere: a page that stayed would never fault, and the
// source's contents could not be put in its place.
func TestExpectDropsWhatWasThere(t *testing.T) {
	eachBacking(t, func(t *testing.T, o BlockOptions) {
		b := newBlock(t, 2, o)
		if err := b.write([]byte{1}, 0); err != nil {
			t.Fatal(err)
		}
		expect(t, b, func(page uint64) { b.MarkPresent(page, 1) })
		p := []byte{9}
		if err := b.read(p, 0); err != nil || p[0] != 0 {
			t.Errorf("reads %d, %v, want 0", p[0], err)
		}
	})
}

// TestAccessWhilePagesArrive has many goroutines read and write while pages
// come in another order, in runs, some before anybody asks.
func TestAccessWhilePagesArrive(t *testing.T) {
	const pages, workers = 512, 16
	b := newBlock(t, pages, BlockOptions{})
	ask := make(chan uint64, pages)
	expect(t, b, func(page uint64) { ask <- page })
	var pagers, wg sync.WaitGroup
	come := NewBitmap(pages)
	bring := func(page uint64) {
		if !come.TestAndSet(page) {
			arrive(b, page, byte(page))
		}
	}
	pagers.Go(func() {
		for page := range ask {
			bring(page)
		}
	})
	pagers.Go(func() {
		for page := range uint64(pages / 2) {
			bring(pages/2 + page)
		}
	})
	for w := range uint64(workers) {
		wg.Go(func() {
			p := make([]byte, 24)
			for i := range uint64(pages - 1) {
				page := (i*37 + w*61) % (pages - 1)
				off := (page+1)*hostPage - 12 // into the next page
				if err := b.read(p, off); err != nil || p[11] != byte(page) || p[12] != byte(page+1) {
					t.Errorf("page %d: %d %d, %v", page, p[11], p[12], err)
					return
				}
				// A place of this goroutine's own.
				own := []byte{byte(w), byte(page)}
				if err := b.write(own, page*hostPage+100+2*w); err != nil {
					t.Error(err)
				}
				if err := b.read(p[:2], page*hostPage+100+2*w); err != nil || [2]byte(p) != [2]byte(own) {
					t.Errorf("page %d: wrote %v, read %v, %v", page, own, p[:2], err)
				}
			}
		})
	}
	wg.Wait()
	close(ask)
	pagers.Wait()
	if err := b.Complete(); err != nil {
		t.Error(err)
	}
	if n := b.presence.waiting.Load(); n != 0 {
		t.Errorf("%d pages are still waited for", n)
	}
}

func TestFaultPathDoesNotAllocate(t *testing.T) {
	b := newBlock(t, 1024, BlockOptions{})
	expect(t, b, func(uint64) {})
	if n := testing.AllocsPerRun(100, func() {
		b.MarkPresent(3, 1)
		b.MarkPresent(256, 256)
		b.Present(700)
		b.NextAbsent(256)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
