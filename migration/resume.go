package migration

import (
	"microvm/memslot"
	"microvm/migration/wire"
)

// resume answers POSTCOPY_RESUME: it tells the source which pages have
// arrived, whether the guest runs here, and which pages are waited for. From
// then on the session is like the one before it.
func (in *inbound) resume() error {
	d := in.d
	if d.fate.Load() == fateGivenUp {
		in.handshake = false
		in.decline()
		return nil
	}
	p := d.pager.Load()
	for _, b := range p.blocks {
		if err := in.sendBitmap(b); err != nil {
			return err
		}
	}
	// The source starts over with its checksums.
	d.sums.restart()
	state, phase := uint32(wire.ResumeLoaded), PhaseLoaded
	if d.fate.Load() == fateRan {
		state, phase = wire.ResumeRunning, PhaseRunning
	}
	d.phase.Store(phase)
	in.handshake = false
	d.opt.Events.mended(uint64(p.left.Load()))
	if err := in.back.send(func(b []byte) []byte { return wire.AppendResumeAck(b, state) }); err != nil {
		return err
	}
	in.workers.Go(in.urgent)
	in.receiveMulti()
	in.workers.Go(in.watchFate)
	if phase == PhaseRunning {
		in.watch()
	}
	// Requests go out from here on; whatever was asked for before, or was
	// dropped meanwhile, is asked for again. Asking twice does no harm: the
	// source sends a page once.
	d.current.Store(in)
	missing := p.missing()
	for len(missing) > 0 {
		n := min(len(missing), maxWaits)
		if err := in.back.request(missing[:n]); err != nil {
			return err
		}
		missing = missing[n:]
	}
	return nil
}

// sendBitmap sends what has arrived of a block.
func (in *inbound) sendBitmap(b *memslot.Block) error {
	const step = wire.MaxBitmapPages
	bits := make([]byte, step/8)
	for first := uint64(0); first < b.Pages(); first += step {
		n := min(step, b.Pages()-first)
		part := bits[:(n+7)/8]
		clear(part)
		for i := range n {
			if b.Present(first + i) {
				part[i/8] |= 1 << (i % 8)
			}
		}
		if err := in.back.send(func(buf []byte) []byte { return wire.AppendRecvBitmap(buf, b.Name(), first, part) }); err != nil {
			return err
		}
	}
	return nil
}
