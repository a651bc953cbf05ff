package migration

import (
	"errors"
	"testing"
	"time"

	"microvm/migration/wire"
)

// POSTCOPY_RUN was lost, and the destination has ended: nobody is left who
// could tell the source so, but for a person.
func TestAGuestThatNeverRanThereIsTakenBackByHand(t *testing.T) {
	for _, verify := range []bool{false, true} {
		l := &ledger{}
		r := receiveWith(t, l, DestinationOptions{Recover: time.Millisecond}, buildOwned(t, l, nil))
		addr, _ := newOutage(t, r.addr, point{mainLeg, "POSTCOPY_RUN", 1})
		s := send(t, l, addr, Options{Verify: verify, Recover: 20 * time.Millisecond})
		if _, err := s.source.TakeBack(); !errors.Is(err, ErrNotPaused) {
			t.Errorf("TakeBack before Run: %v", err)
		}
		s.run()
		s.gone()
		says(t, s.source.Cancel(), "given to the destination", "yet to say")
		if err := r.wait(); !errors.Is(err, ErrUnheard) {
			t.Errorf("Receive: %v, want %v", err, ErrUnheard)
		}
		s.report, s.err = s.source.TakeBack()
		if !errors.Is(s.err, ErrTakenBack) {
			t.Errorf("TakeBack: %v", s.err)
		}
		s.stayed()
		if s.source.Phase() != PhaseFailed || s.report.Result != ResultFailed {
			t.Errorf("phase %s, result %s", s.source.Phase(), s.report.Result)
		}
		// It is over.
		says(t, s.source.Cancel(), "has ended already", "the guest is here")
		if _, err := s.source.TakeBack(); !errors.Is(err, ErrNotPaused) {
			t.Errorf("TakeBack once more: %v", err)
		}
		if _, err := s.source.Resume(t.Context(), r.addr, time.Second); !errors.Is(err, ErrNotPaused) {
			t.Errorf("Resume after it: %v", err)
		}
		if l.resumed != 1 || l.taken != 1 {
			t.Errorf("%+v", l)
		}
	}
}

// What has run at the destination has done things since: the memory that is
// left here is of the past, and the guest may be going on there.
func TestAGuestThatRanThereIsNotTakenBack(t *testing.T) {
	for _, from := range []point{{mainLeg, "RAM", 1}, {returnLeg, "RUNNING", 1}} {
		t.Run(from.String(), func(t *testing.T) {
			l := &ledger{}
			r := receiveWith(t, l, DestinationOptions{}, buildOwned(t, l, nil))
			addr, over := newOutage(t, r.addr, from)
			s := send(t, l, addr, Options{Verify: true, Recover: 20 * time.Millisecond})
			s.run()
			s.gone()
			if from.name == "RUNNING" {
				// It hears of it at the second attempt, which breaks as well.
				cut, _ := newOutage(t, r.addr, point{mainLeg, "RAM", 1})
				paused := make(chan error, 1)
				go func() {
					_, err := s.source.Resume(t.Context(), cut, time.Minute)
					paused <- err
				}()
				tick := time.NewTicker(time.Millisecond)
				defer tick.Stop()
				for late := time.After(patience); !s.source.RanThere() || !s.source.Redirect(Address{}, 0); {
					select {
					case <-tick.C:
					case <-late:
						t.Fatalf("RUNNING is not heard of, in phase %s", s.source.Phase())
					}
				}
				if err := <-paused; !errors.As(err, new(*PausedError)) {
					t.Fatalf("Resume: %v", err)
				}
			}
			says(t, s.source.Cancel(), "runs at the destination already")
			if rep, err := s.source.TakeBack(); err != ErrRanThere || rep != nil {
				t.Errorf("TakeBack: %v, %+v", err, rep)
			}
			s.gone()
			over()
			rep, err := s.source.Resume(t.Context(), r.addr, time.Minute)
			s.arrived(r, rep, err, rep.Recoveries)
			if _, err := s.source.TakeBack(); !errors.Is(err, ErrNotPaused) {
				t.Errorf("TakeBack after the end: %v", err)
			}
		})
	}
}

// A machine that does not resume when it is taken back is this side's all the
// same, and whoever asked is told.
func TestAGuestThatIsTakenBackAndDoesNotResume(t *testing.T) {
	l := &ledger{}
	addr := newRawDest(t, toRun(hangsUp))
	s := sendAs(t, l, addr, Options{}, []uint64{wire.PageSize}, func(m sourceSide) SourceMachine { return stubborn{m} })
	s.run()
	rep, err := s.source.TakeBack()
	if !errors.Is(err, ErrTakenBack) || !errors.Is(err, errTest) || rep.Owner != OwnerSource {
		t.Errorf("TakeBack: %v, %+v", err, rep)
	}
}

// stubborn does not resume.
type stubborn struct{ sourceSide }

func (stubborn) Resume() error { return errTest }
