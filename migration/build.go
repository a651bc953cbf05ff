package migration

import (
	"context"
	"fmt"

	"microvm/migration/wire"
)

// config has the machine built.
func (in *inbound) config(ctx context.Context, body []byte) error {
	d := in.d
	if d.machine != nil {
		return protocolError("CONFIG", "a second time")
	}
	c, err := wire.DecodeConfig(body)
	if err != nil {
		return &RefusedError{err.Error()} // nothing has moved
	}
	d.terms = payloadTerms{compression: wire.KindOf(c.Compress), checksum: c.Checksum}
	m, err := d.build(ctx, c.Machine)
	if err != nil {
		return &RefusedError{err.Error()}
	}
	d.machine = m
	in.back.blocks = m.Blocks()
	if err := agree(c, m); err != nil {
		return &RefusedError{err.Error()}
	}
	if c.Verify {
		d.sums = newSums(m.Blocks())
	}
	return nil
}

// advise takes in the page sizes, and tells the source its own if they differ:
// a page of the destination is placed whole, so it must arrive whole.
func (in *inbound) advise(body []byte) error {
	d := in.d
	a, err := wire.DecodeAdvise(body)
	if err != nil {
		return err
	}
	if d.machine == nil || d.Phase() != PhaseSetup {
		return protocolError("POSTCOPY_ADVISE", "in phase %s", d.Phase())
	}
	if a.TargetPageSize != wire.PageSize {
		return &RefusedError{fmt.Sprintf("the source counts in pages of %d bytes, the destination of %d", a.TargetPageSize, wire.PageSize)}
	}
	blocks := d.machine.Blocks()
	if len(a.PageSizes) != len(blocks) {
		return protocolError("POSTCOPY_ADVISE", "%d blocks, CONFIG had %d", len(a.PageSizes), len(blocks))
	}
	if err := in.sayPageSizes(a); err != nil {
		return err
	}
	d.collect = holdCollector()
	// Armed this early, userfaultfd puts what comes by precopy in place as
	// well, three times as fast as first touches would.
	p, err := newPager(blocks, d.sums, d.request)
	if err != nil {
		return &RefusedError{err.Error()}
	}
	d.pager.Store(p)
	d.phase.Store(PhaseAdvise)
	in.receiveMulti()
	return nil
}
