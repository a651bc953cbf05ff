package migration

import "microvm/migration/wire"

// pusher chooses, of the pages that nobody has asked for, which go next, so
// that the migration ends: those around recent faults, because what is touched
// next is often near, and otherwise by address from where it was last.
type pusher struct {
	o      *outgoing
	pivots pivots
	last   hostPage
}

// push sends pages until every one is sent or claimed by an answer.
func (o *outgoing) push(l *link, bandwidth uint64) error {
	p := &pusher{o: o, pivots: pivots{o: o}}
	return newSpread(o, l, sendsBulk, bandwidth, p.take).run(l.alive)
}

// take claims the pages that go next.
func (p *pusher) take(pages []hostPage, room int) ([]hostPage, error) {
	p.pivots.follow()
	for room > 0 && p.next() {
		if p.o.claim(p.last.block, p.last.page) {
			pages = append(pages, p.last)
			room -= int(p.o.blocks[p.last.block].perHost) * wire.PageSize
		}
	}
	return pages, nil
}

// next moves to a page that is not claimed: one around a fault, or the first
// from here on, then the first of the blocks that follow, around to where it
// began. It reports false if there is none.
func (p *pusher) next() bool {
	if at, ok := p.pivots.next(); ok {
		p.last = at
		return true
	}
	for range len(p.o.blocks) + 1 {
		if page, ok := p.o.blocks[p.last.block].sent.NextClear(p.last.page); ok {
			p.last.page = page
			return true
		}
		p.last = hostPage{block: (p.last.block + 1) % len(p.o.blocks)}
	}
	return false
}

// answerer answers requests for pages.
type answerer struct {
	o     *outgoing
	l     *link
	batch *batch
	block int // of the request before; -1 before the first
	sent  int // messages
}

func newAnswerer(o *outgoing, l *link) *answerer {
	return &answerer{o: o, l: l, batch: newBatch(o, urgentChannel, sendsUrgent), block: -1}
}

// pages sends what req asks for on the urgent channel: what was not sent before,
// and what was but has not arrived, or nobody would ask for it. That is on its way
// behind other pages, for as long as a socket's worth of them takes, and the guest
// stands still. The destination keeps what comes first. Large host pages are not
// sent again: one of them takes as long as all that is before it.
func (a *answerer) pages(req wire.ReqPages) error {
	if req.Block != nil {
		block, ok := a.o.byName[string(req.Block)]
		if !ok {
			return protocolError("REQ_PAGES", "RAM block %q: there is none of that name", req.Block)
		}
		a.block = block
	}
	if a.block < 0 {
		return protocolError("REQ_PAGES", "the first request names no RAM block")
	}
	b := &a.o.blocks[a.block]
	size := uint64(len(b.mem))
	if req.Start >= size || req.Len > size-req.Start {
		return protocolError("REQ_PAGES", "RAM block %q: [%#x, +%#x) of %#x bytes", b.name, req.Start, req.Len, size)
	}
	host := b.perHost * wire.PageSize
	first, end := req.Start/host, (req.Start+req.Len+host-1)/host
	a.o.requests.Add(end - first)

	a.l.urgentMu.Lock()
	defer a.l.urgentMu.Unlock()
	for page := first; page < end; page++ {
		if a.o.claim(a.block, page) {
			a.o.faults.add(a.block, page, b.directions(page))
			a.batch.add(a.block, page)
		} else if b.perHost == 1 {
			a.batch.repeat(a.block, page)
		}
		if a.batch.full() || (page == end-1 && !a.batch.empty()) {
			if err := a.batch.send(a.l.urgent); err != nil {
				return err
			}
			a.sent++
		}
	}
	return nil
}
