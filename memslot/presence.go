package memslot

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// askWindow is how many absent pages an access that is longer than a page asks
// for before it waits, so that a buffer costs one round trip, not one a page.
const askWindow = 256

// presence knows which pages of a block are here and who waits for the others.
type presence struct {
	// bits: set means the page is here. All set outside a migration.
	bits *Bitmap
	// waiting is len(asked), for MarkPresent to see without the lock that
	// nobody waits. Whoever asks stores it before looking at the bit a last
	// time, and MarkPresent sets the bit before loading it: one of them
	// sees the other.
	waiting atomic.Int32

	mu sync.Mutex // guards what follows
	// asked has a channel for each page that was asked for and isn't here;
	// it is closed when the page has come or will not come.
	asked map[uint64]chan struct{}
	fetch func(page uint64)
	err   error
}

func (p *presence) init(pages uint64) {
	p.bits = NewBitmap(pages)
	p.bits.SetRange(0, pages)
	p.asked = make(map[uint64]chan struct{})
}

// reset makes every page absent.
func (p *presence) reset(fetch func(page uint64)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fetch, p.err = fetch, nil
	p.bits.ClearRange(0, p.bits.Len())
}

// await returns when pages first to last are all here, or with the error that
// says why one will not come.
func (p *presence) await(first, last uint64) error {
	for ; first <= last; first += askWindow {
		end := min(last, first+askWindow-1)
		for page := first; page <= end; page++ {
			if _, err := p.ask(page); err != nil {
				return err
			}
		}
		for page := first; page <= end; page++ {
			arrived, err := p.ask(page)
			for ; arrived != nil && err == nil; arrived, err = p.ask(page) {
				<-arrived
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// request asks for those of pages first to last that are not here, at most
// askWindow of them, and does not wait. It reports whether all are here.
func (p *presence) request(first, last uint64) (here bool) {
	here = true
	for asked := 0; first <= last && asked < askWindow; first++ {
		absent, ok := p.bits.NextClear(first)
		if !ok || absent > last {
			break
		}
		here, first = false, absent
		asked++
		// Why a page will not come is for whoever needs it to find out.
		_, _ = p.ask(absent)
	}
	return here
}

// ask returns nil if the page is here; otherwise a channel that is closed when
// this has changed, and the page has been asked for.
func (p *presence) ask(page uint64) (<-chan struct{}, error) {
	if p.bits.Test(page) {
		return nil, nil
	}
	p.mu.Lock()
	if arrived := p.asked[page]; arrived != nil {
		p.mu.Unlock()
		return arrived, nil
	}
	arrived := make(chan struct{})
	p.asked[page] = arrived
	p.waiting.Store(int32(len(p.asked)))
	here := p.bits.Test(page)
	if here || p.err != nil {
		p.forget(page)
	}
	fetch, err := p.fetch, p.err
	p.mu.Unlock()
	switch {
	case here:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("page %d: %w", page, err)
	}
	// Without the lock, so that fetch may find the page and mark it.
	fetch(page)
	return arrived, nil
}

// arrived wakes those who wait for n pages from first on.
//
// Preconditions: their bits have been set.
func (p *presence) arrived(first, n uint64) {
	if p.waiting.Load() == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n <= uint64(len(p.asked)) {
		for page := first; page-first < n; page++ {
			p.forget(page)
		}
		return
	}
	for page := range p.asked {
		if page-first < n {
			p.forget(page)
		}
	}
}

func (p *presence) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	for page := range p.asked {
		p.forget(page)
	}
}

// close makes every page absent for good.
func (p *presence) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = ErrClosed
	p.bits.ClearRange(0, p.bits.Len())
	for page := range p.asked {
		p.forget(page)
	}
}

// forget wakes those who wait for the page, if any.
//
// Preconditions: p.mu is held.
func (p *presence) forget(page uint64) {
	if arrived := p.asked[page]; arrived != nil {
		close(arrived)
		delete(p.asked, page)
		p.waiting.Store(int32(len(p.asked)))
	}
}
