package migration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"microvm/migration/wire"
)

// postcopy sees a guest off that is the destination's now: POSTCOPY_RUN has
// been written. l is nil if the connections are broken; they are opened again,
// for as long as that is wanted and ctx has not ended.
func (s *Source) postcopy(ctx context.Context, l *link) error {
	for {
		if l == nil {
			s.phase.Store(PhasePostcopyPaused)
			var err error
			l, err = s.reconnect(ctx)
			if s.declined(err) {
				return s.takeBack(l, err)
			}
			if err != nil {
				return &PausedError{err}
			}
			s.report.Recoveries++
			s.opt.Events.mended(s.ram.total - s.ram.claimed.Load())
			s.opt.Log.Info("connected again", "pages_left", s.ram.total-s.ram.claimed.Load())
		}
		s.phase.Store(PhasePostcopyActive)
		err := s.finishOn(l)
		if s.declined(err) {
			return s.takeBack(l, err)
		}
		l.close()
		if err == nil {
			return nil
		}
		<-l.closed // it shares the account of pages with its successor
		s.opt.Log.Warn("the connections broke; the guest runs at the destination on the pages it has", "error", err)
		s.opt.Events.broken(err, s.ram.total-s.ram.claimed.Load())
		l, s.broke = nil, err
	}
}

// finishOn does what is left to do, on connections that work so far.
func (s *Source) finishOn(l *link) error {
	if !s.running {
		running, err := l.awaitRunning()
		if err != nil {
			return fmt.Errorf("no RUNNING after POSTCOPY_RUN: %w", err)
		}
		s.ran(l, running)
	}
	return s.push(l)
}

// ran notes that the guest runs at the destination.
func (s *Source) ran(l *link, r wire.Running) {
	s.running = true
	s.ranThere.Store(true)
	d := &s.report.Downtime
	d.ResumeNS = int64(r.ResumeNanos)
	parts := d.PauseNS + d.SaveNS + d.LoadNS + d.ResumeNS
	// Half a round trip is an estimate, and on a busy host a bad one.
	s.report.DowntimeNS = max(int64(time.Since(s.stopping)-l.rtt/2), parts+1)
	d.TransferNS = s.report.DowntimeNS - parts
	s.downtime.Store(&ranAfter{s.report.DowntimeNS, *d})
	s.opt.Events.downtime("transfer", d.TransferNS)
	s.opt.Events.downtime("resume", d.ResumeNS)
	s.opt.Events.downtime("total", s.report.DowntimeNS)
	s.opt.Log.Info("the guest runs at the destination", "downtime", time.Duration(s.report.DowntimeNS))
}

// declined tells whether err is the destination's word that it has never run
// the guest and never will.
func (s *Source) declined(err error) bool {
	return !s.running && errors.As(err, new(*FailedError))
}

// takeBack makes this side the owner again, after POSTCOPY_RUN, and tells the
// destination so. why is what that said.
func (s *Source) takeBack(l *link, why error) error {
	why = s.reclaim(why)
	l.sayCancel(why)
	return why
}

// push sends what is left without being asked, then sees the migration out.
func (s *Source) push(l *link) error {
	err := s.pushAll(l)
	if err != nil {
		err = l.explain(err)
	}
	// After an error too: a guest that ends needs no more pages, and the
	// destination then says SHUT without waiting for them.
	if serr := l.awaitShut(); serr == nil || err == nil {
		err = serr
	}
	if err == nil {
		s.sayEnd(l)
	}
	return err
}

func (s *Source) pushAll(l *link) error {
	if err := s.ram.push(l, s.opt.PushBandwidth); err != nil {
		return err
	}
	if err := s.sync(l); err != nil {
		return err
	}
	count, err := s.sums.send(func(m []byte) error { return s.sendMain(l, m) })
	if err != nil {
		return err
	}
	done := wire.Complete{DataPages: s.ram.dataPages.Load(), ZeroPages: s.ram.zeroPages.Load(), Checksums: count}.Append(nil)
	if err := l.sendUrgent(s.ram, done); err != nil {
		return err
	}
	if err := l.sendMulti(s.ram, done); err != nil {
		return err
	}
	return s.sendMain(l, done)
}

// sayEnd answers SHUT, and waits until the destination has heard it: to close
// with its statistics unread would destroy END on its way. If it does not hear
// it, it waits for a source that never comes back, which harms nobody.
func (s *Source) sayEnd(l *link) {
	defer time.AfterFunc(drainTimeout, l.close).Stop()
	if s.sendMain(l, wire.Message(wire.TypeEnd, nil)) == nil {
		_, _ = io.Copy(io.Discard, l.main)
	}
}

// errShutEarly says that the destination closed in a way that is no success.
func errShutEarly(err error) error {
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return fmt.Errorf("the destination closed the connection: %w", io.ErrUnexpectedEOF)
	case errors.Is(err, unix.ECONNRESET):
		return fmt.Errorf("the destination closed the connection with data unread: %w", err)
	}
	return err
}
