package migration

import (
	"errors"
	"fmt"
)

// ErrTakenBack is what a migration ended with whose guest a person took back.
var ErrTakenBack = errors.New("taken back by hand, on the word that the destination does not run the VM")

// ErrRanThere is what TakeBack returns when the guest is known to have run at
// the destination.
var ErrRanThere = errors.New("the guest has run at the destination: its memory here is older than what it has done since")

// RanThere tells whether the guest is known to have run at the destination. If
// not, it may have.
func (s *Source) RanThere() bool { return s.ranThere.Load() }

// TakeBack makes this side the owner again, and lets the guest run on, after
// Run or Resume has left the migration with a [*PausedError]: POSTCOPY_RUN was
// written, and nobody knows whether it has arrived. This side cannot find out
// by itself, or Resume would have. Preconditions: the caller has made sure that
// the destination does not run the guest and never will. If it does, there are
// two of it.
//
// The error is ErrTakenBack, possibly with that of a machine that does not
// resume; ErrRanThere, with which nothing has changed; or ErrNotPaused.
func (s *Source) TakeBack() (*Report, error) {
	if !s.route.take(Address{}, 0) {
		return nil, fmt.Errorf("%w: it is %s", ErrNotPaused, s.Phase())
	}
	if s.RanThere() {
		s.route.hold()
		return nil, ErrRanThere
	}
	rep := *s.report // whoever was given it may still be reading it
	s.report = &rep
	s.opt.Log.Warn("the guest is taken back by hand")
	return s.finish(&rep, s.reclaim(ErrTakenBack))
}

// reclaim makes this side the owner again after POSTCOPY_RUN. why is what it
// does that upon; it returns it, with what went wrong.
func (s *Source) reclaim(why error) error {
	s.sums.stop()
	if err := errors.Join(s.machine.TakeBack(), s.machine.Resume()); err != nil {
		why = errors.Join(why, fmt.Errorf("resume the VM that came back: %w", err))
	}
	s.committed.Store(takenBack)
	s.report.Owner = OwnerSource
	return why
}
