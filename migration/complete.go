package migration

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"microvm/migration/wire"
)

// lastPages bounds the wait for pages that were sent before COMPLETE on the
// urgent channel, and can only be in its socket still.
const lastPages = time.Minute

// complete sees to the end: the last pages in place, userfaultfd unregistered,
// the source told.
func (in *inbound) complete(ctx context.Context, c wire.Complete) error {
	d := in.d
	if d.Phase() != PhaseRunning {
		return protocolError("COMPLETE", "in phase %s", d.Phase())
	}
	p := d.pager.Load()
	late := time.NewTimer(lastPages)
	defer late.Stop()
	select {
	case <-p.done:
	case <-d.machine.Done():
		return nil // watchGuest says SHUT
	case err := <-in.broken:
		return err
	case <-late.C:
		return protocolError("COMPLETE", "%d data and %d zero pages sent, but %d never came", c.DataPages, c.ZeroPages, p.left.Load())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if !d.whole {
		if err := in.settle(p); err != nil {
			return err
		}
	}
	in.sayShut()
	return nil
}

// settle makes memory ordinary again: every page is here.
func (in *inbound) settle(p *pager) error {
	d := in.d
	if err := p.release(); err != nil {
		return &fatalError{err}
	}
	d.whole = true
	if err := d.machine.Settle(); err != nil {
		d.log.Warn("every page is here", "error", err)
	}
	if d.sums == nil {
		return nil
	}
	err := d.sums.verify(p.blocks)
	v := &verified{ok: err == nil}
	if err != nil {
		v.problem = err.Error()
		d.log.Error("verification failed", "error", err)
	}
	d.verdict.Store(v)
	return nil
}

// sayShut tells the source that it is needed no more, with the final
// statistics. The source answers by END. If it has not heard it, it comes back.
func (in *inbound) sayShut() {
	in.last.Do(func() {
		err := in.sendStats()
		if err == nil {
			err = in.back.send(func(b []byte) []byte { return wire.AppendShut(b, 0) })
		}
		if err != nil {
			in.d.log.Warn("the source does not know that it is needed no more", "error", err)
		}
		in.s.main.SetReadDeadline(time.Now().Add(helloTimeout))
	})
}

// statsEvery is how often the source hears how things are here.
const statsEvery = 250 * time.Millisecond

// statistics sends STATS until the last page is in place.
func (in *inbound) statistics() {
	tick := time.NewTicker(statsEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if in.sendStats() != nil {
				return // the main reader finds out as well
			}
		case <-in.d.pager.Load().done:
			return
		case <-in.over:
			return
		}
	}
}

func (in *inbound) sendStats() error {
	in.telling.Lock()
	defer in.telling.Unlock()
	st := in.d.stats()
	in.d.opt.Events.faults(&st)
	text, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("STATS: %w", err)
	}
	return in.back.send(func(b []byte) []byte { return wire.AppendStats(b, text) })
}

func (d *Destination) stats() stats {
	p := d.pager.Load()
	s := stats{PagesLeft: uint64(p.left.Load()), RunsDamaged: d.damaged.Load()}
	if v := d.verdict.Load(); v != nil {
		s.Verified, s.Problem = &v.ok, v.problem
	}
	p.report(&s)
	return s
}
