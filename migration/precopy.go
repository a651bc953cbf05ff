package migration

import (
	"context"
	"fmt"
	"time"

	"microvm/memslot"
	"microvm/migration/wire"
)

// precopy sends memory while the guest runs, pass by pass: each pass sends what
// was written during the one before it.
//
// The page that is sent has its dirty bit cleared first, in chunks, so that a
// write after that is seen by the next pass, and pages ahead of the pass that
// are written meanwhile are sent once.
type precopy struct {
	s   *Source
	l   *link
	log DirtyLogger
	out *spread
	// dirty has the target pages that were logged and not cleared since.
	dirty []*memslot.Bitmap
	// finish: what is left goes with the guest stopped, not by postcopy.
	finish bool
	// block, page and chunk are how far the pass has come; the log of the
	// block is cleared up to the end of chunk. broken is why it went no
	// further, if that is the log.
	block  int
	page   uint64
	chunk  int
	broken error
	mask   [clearChunk / 64]uint64
}

// clearChunk is how many target pages are cleared in the dirty log at a time:
// 32 MiB. KVM write-protects them under its lock; vCPUs should not feel it.
const clearChunk = 8 << 10

// dirtyLogger gives the machine's dirty log, which not every one has.
func (s *Source) dirtyLogger() (DirtyLogger, error) {
	log, ok := s.machine.(DirtyLogger)
	if !ok {
		return nil, &RefusedError{fmt.Sprintf("mode %s needs a dirty log, which this machine does not have; use postcopy", s.opt.Mode)}
	}
	return log, nil
}

func newPrecopy(s *Source, l *link, log DirtyLogger) *precopy {
	p := &precopy{s: s, l: l, log: log}
	p.out = newSpread(s.ram, l, sendsLive, s.opt.Bandwidth, p.take)
	for _, b := range s.machine.Blocks() {
		p.dirty = append(p.dirty, memslot.NewBitmap(b.Size()/wire.PageSize))
	}
	return p
}

// run makes passes until the switch is due. The dirty log goes on.
func (p *precopy) run(ctx context.Context) error {
	s := p.s
	if err := p.log.StartDirtyLog(); err != nil {
		return fmt.Errorf("start the dirty log: %w", err)
	}
	// A log may begin with every page in it, not write-protected until it is
	// cleared: then vCPUs do not all pay at once.
	if _, err := p.collect(); err != nil {
		return err
	}
	began := time.Now()
	defer func() { s.report.PrecopyNS = int64(time.Since(began)) }()
	for n := 1; ; n++ {
		from, start := s.ram.dataPages.Load(), time.Now()
		if err := p.pass(ctx); err != nil {
			return err
		}
		took := time.Since(start)
		dirty, err := p.collect()
		if err != nil {
			return err
		}
		m := pass{number: n, sent: (s.ram.dataPages.Load() - from) * wire.PageSize, took: took, dirty: dirty * wire.PageSize, elapsed: time.Since(began)}
		s.report.Passes = n
		verdict, why := s.opt.decide(m)
		s.opt.Events.passed(m, verdict, s.throttle.percent())
		s.opt.Log.Debug("precopy", "pass", n, "sent", m.sent, "took", took, "dirty", m.dirty, "verdict", verdict, "why", why)
		switch verdict {
		case verdictFinish, verdictSwitch:
			p.finish = verdict == verdictFinish
			s.report.Switch = why
			s.opt.Events.switched(verdict, why, dirty)
			return nil
		case verdictGiveUp:
			return fmt.Errorf("%w: %s", ErrTimeout, why)
		}
		if s.throttle.after(m) {
			s.opt.Log.Info("the guest is slowed down, since passes do not win", "percent", s.throttle.percent())
		}
	}
}

// pass sends every page that the destination does not have as it is now. What
// is sent after it comes after it, on whatever channel.
func (p *precopy) pass(ctx context.Context) error {
	p.block, p.page, p.chunk = 0, 0, 0
	err := p.out.run(ctx)
	if err == nil {
		err = p.s.sync(p.l)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case p.broken != nil:
		return p.broken
	}
	return p.l.explain(cause(ctx, err))
}

// take claims the pages that go next, and has writes to them logged anew.
func (p *precopy) take(pages []hostPage, room int) ([]hostPage, error) {
	for p.block < len(p.s.ram.blocks) {
		b := &p.s.ram.blocks[p.block]
		page, ok := b.sent.NextClear(p.page)
		if !ok {
			p.block, p.page, p.chunk = p.block+1, 0, 0
			continue
		}
		if room <= 0 {
			break
		}
		if p.broken = p.protect(p.block, (page+1)*b.perHost); p.broken != nil {
			return pages, p.broken
		}
		p.s.ram.claim(p.block, page)
		partly := b.changes != nil && b.stale.Test(page)
		if b.changes != nil && !partly {
			b.changes.ClearRange(page*b.perHost, b.perHost)
		}
		b.stale.Clear(page)
		pages = append(pages, hostPage{p.block, page, partly})
		room -= int(b.perHost) * wire.PageSize
		p.page = page + 1
	}
	return pages, nil
}

// protect has the writes to target pages below end logged anew.
func (p *precopy) protect(block int, end uint64) error {
	for ; uint64(p.chunk)*clearChunk < end; p.chunk++ {
		if err := protectChunk(p.log, p.dirty, block, uint64(p.chunk)*clearChunk, &p.mask); err != nil {
			return err
		}
	}
	return nil
}

// protectChunk has the writes to those of the clearChunk target pages from first on
// logged anew that dirty has, and takes them out of it. mask is room for their bits.
func protectChunk(log DirtyLogger, dirty []*memslot.Bitmap, block int, first uint64, mask *[clearChunk / 64]uint64) error {
	words := dirty[block].Words()[first/64:]
	words = words[:min(len(words), len(mask))]
	any := uint64(0)
	for i := range words {
		mask[i] = words[i].Swap(0)
		any |= mask[i]
	}
	if any == 0 {
		return nil
	}
	if err := log.ClearDirty(block, first, mask[:len(words)]); err != nil {
		return fmt.Errorf("clear the dirty log: %w", err)
	}
	return nil
}

// collect takes in what was written since, and returns how many target pages
// there are to send.
func (p *precopy) collect() (uint64, error) {
	if err := p.log.DirtyPages(p.dirty); err != nil {
		return 0, fmt.Errorf("read the dirty log: %w", err)
	}
	o := p.s.ram
	for i, dirty := range p.dirty {
		b := &o.blocks[i]
		b.note(dirty)
		for t, ok := dirty.NextSet(0); ok; {
			page := t / b.perHost
			if b.sent.Test(page) {
				b.sent.Clear(page)
				b.stale.Set(page)
				o.claimed.Add(-b.perHost)
			}
			t, ok = dirty.NextSet((page + 1) * b.perHost)
		}
	}
	left := o.total - o.claimed.Load()
	for i := range o.blocks {
		left -= o.blocks[i].unchanged()
	}
	return left, nil
}

// last is what is left to do when the guest has stopped: to send what was
// written since it was sent, or to have it dropped and sent by postcopy.
func (p *precopy) last(ctx context.Context) error {
	p.s.throttle.end() // it has stopped; if it runs here again, then at full speed
	if _, err := p.collect(); err != nil {
		return err
	}
	defer func() { p.s.report.RAM.PagesPrecopy = p.s.ram.dataPages.Load() }()
	if p.finish {
		return p.pass(ctx)
	}
	return p.discard()
}

// discard tells the destination to drop what it has as it no longer is. The
// guest is paused.
func (p *precopy) discard() error {
	for i := range p.s.ram.blocks {
		b := &p.s.ram.blocks[i]
		d := wire.Discard{Block: b.name}
		for page, ok := b.stale.NextSet(0); ok; {
			end, more := b.stale.NextClear(page)
			if !more {
				end = b.pages
			}
			d.Ranges = append(d.Ranges, wire.Range{First: page * b.perHost, Count: (end - page) * b.perHost})
			p.s.report.RAM.PagesDiscarded += (end - page) * b.perHost
			page, ok = b.stale.NextSet(end)
			if len(d.Ranges) == wire.MaxDiscardRanges || !ok {
				if err := p.s.sendMain(p.l, d.Append(nil)); err != nil {
					return p.l.explain(err)
				}
				d.Ranges = d.Ranges[:0]
			}
		}
	}
	return nil
}
