package migration

import (
	"context"
	"errors"
	"fmt"
	"time"

	"microvm/memslot"
	"microvm/migration/wire"
)

// Between two attempts to dial again the source waits, longer each time.
const (
	firstBackoff = 50 * time.Millisecond
	lastBackoff  = 5 * time.Second
)

// reconnect opens the connections again, by a route that a person may change
// meanwhile, and settles with the destination what it has.
func (s *Source) reconnect(ctx context.Context) (*link, error) {
	for {
		a := s.route.begin(ctx)
		l, err := s.dialAgain(a)
		changed := s.route.end()
		if err == nil || s.declined(err) || !changed {
			return l, err
		}
		s.opt.Log.Info("to be connected again by another route", "destination", s.Destination().String())
	}
}

// dialAgain tries to connect as often as it takes within the time there is.
func (s *Source) dialAgain(a attempts) (*link, error) {
	if a.within <= 0 {
		return nil, s.broke
	}
	if a.dest.Network == networkFD {
		return nil, fmt.Errorf("%w; %w", s.broke, errPassed)
	}
	ctx, cancel := context.WithTimeout(a.ctx, a.within)
	defer cancel()
	last := errors.New("not tried")
	for backoff := a.wait; ; backoff = min(max(2*backoff, firstBackoff), lastBackoff) {
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("not connected to %s again within %v (%w); first: %w", a.dest, a.within, last, s.broke)
		}
		l, err := s.resume(ctx, a.dest)
		if err == nil || s.declined(err) {
			return l, err
		}
		s.opt.Log.Debug("not connected again yet", "error", err)
		last = err
	}
}

// resume is one attempt: hello, POSTCOPY_RESUME, RECV_BITMAP of every block,
// RESUME_ACK, and POSTCOPY_RUN once more if the first was lost. Whatever breaks
// on the way, the next attempt begins at the beginning.
func (s *Source) resume(ctx context.Context, dest Address) (*link, error) {
	l, err := s.connect(ctx, dest, true)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, l.close)
	err = s.handshake(ctx, l)
	if s.declined(err) {
		stop()
		return l, err // it waits for an answer
	}
	if err == nil && !stop() {
		err = context.Cause(ctx) // in the last moment
	}
	if err != nil {
		l.close()
		<-l.closed
		return nil, err
	}
	return l, nil
}

func (s *Source) handshake(ctx context.Context, l *link) error {
	if err := s.sendMain(l, wire.Message(wire.TypeResume, nil)); err != nil {
		return l.explain(err)
	}
	state, err := await(ctx, l, l.resumed)
	if err != nil {
		return err
	}
	switch {
	case state == wire.ResumeRunning && !s.running:
		// It got POSTCOPY_RUN; only its RUNNING was lost.
		s.ran(l, wire.Running{})
	case state == wire.ResumeLoaded && !s.running:
		_, err := s.sendRun(l)
		return err
	case state != wire.ResumeRunning:
		return protocolError("RESUME_ACK", "state %d after RUNNING", state)
	}
	return nil
}

// arrivals takes in what a destination says has arrived there.
type arrivals struct {
	o    *outgoing
	bits []*memslot.Bitmap
	told []uint64 // by block: pages that were spoken of
}

func newArrivals(o *outgoing) *arrivals {
	a := &arrivals{o: o, told: make([]uint64, len(o.blocks))}
	for i := range o.blocks {
		a.bits = append(a.bits, memslot.NewBitmap(o.blocks[i].pages))
	}
	return a
}

// add takes in one RECV_BITMAP. They come in order, each page once.
func (a *arrivals) add(r wire.RecvBitmap) error {
	i, ok := a.o.byName[string(r.Block)]
	if !ok {
		return protocolError("RECV_BITMAP", "RAM block %q: there is none of that name", r.Block)
	}
	pages := a.o.blocks[i].pages
	if r.First != a.told[i] || r.First >= pages || uint64(len(r.Bitmap)) > (pages-r.First+7)/8 {
		return protocolError("RECV_BITMAP", "RAM block %q: %d bytes for pages from %d on, of %d, after page %d",
			r.Block, len(r.Bitmap), r.First, pages, a.told[i])
	}
	n := min(uint64(len(r.Bitmap))*8, pages-r.First)
	for p := range n {
		if r.Bitmap[p/8]&(1<<(p%8)) != 0 {
			a.bits[i].Set(r.First + p)
		}
	}
	a.told[i] += n
	return nil
}

// apply makes the account of what was sent that of what has arrived. Nobody
// sends pages meanwhile.
func (a *arrivals) apply() error {
	var claimed uint64
	for i := range a.o.blocks {
		b := &a.o.blocks[i]
		if a.told[i] != b.pages {
			return protocolError("RESUME_ACK", "RAM block %q: the destination spoke of %d pages out of %d", b.name, a.told[i], b.pages)
		}
		claimed += a.bits[i].Count() * b.perHost
	}
	for i := range a.o.blocks {
		a.o.blocks[i].sent = a.bits[i]
	}
	a.o.claimed.Store(claimed)
	return nil
}
