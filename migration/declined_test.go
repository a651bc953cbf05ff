package migration

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// The destination gives up when POSTCOPY_RUN is written already: it says so,
// and the guest runs on at the source, whatever gets lost.
func TestAGuestThatIsDeclinedAfterRunGoesBack(t *testing.T) {
	for _, lost := range []string{"nothing", "POSTCOPY_RUN", "FAILED", "CANCEL"} {
		t.Run(lost+" is lost", func(t *testing.T) {
			drainFor(t, patience)
			recover := time.Minute
			if lost == "CANCEL" {
				recover = 2 * time.Second // nobody comes back
			}
			l := &ledger{}
			r := receiveWith(t, l, DestinationOptions{Recover: recover}, buildOwned(t, l, nil))
			var p *proxy
			gone := false
			var dropped atomic.Bool
			p, addr := newProxy(t, r.addr, func(at point, message []byte) (int, bool) {
				if at.name == "POSTCOPY_RUN" && !r.dest.GiveUp() {
					t.Error("GiveUp is refused before RUN has arrived")
				}
				if at.name == "FAILED" && gone && !dropped.Load() {
					// As all is lost that these connections still carry: if
					// the source heard it, its CANCEL would be lost instead.
					return 0, false
				}
				if at.name != lost || gone {
					return len(message), false
				}
				gone = true
				go func() { p.drop(); dropped.Store(true) }()
				return 0, false
			})
			s := send(t, l, addr, Options{Recover: time.Minute})
			if err := s.run(); !errors.As(err, new(*FailedError)) {
				t.Errorf("Run: %v", err)
			}
			if err := r.wait(); !errors.Is(err, ErrGivenUp) {
				t.Errorf("Receive: %v", err)
			}
			s.stayed()
		})
	}
}

// stillborn cannot be started.
type stillborn struct{ DestinationMachine }

func (stillborn) Run() error { return errTest }

// vCPUs that could not be started have not run.
func TestAGuestThatCannotBeStartedGoesBack(t *testing.T) {
	drainFor(t, patience)
	l := &ledger{}
	build := buildOwned(t, l, nil)
	r := receiveWith(t, l, DestinationOptions{Recover: time.Minute}, func(ctx context.Context, config []byte) (DestinationMachine, error) {
		m, err := build(ctx, config)
		return stillborn{m}, err
	})
	s := send(t, l, r.addr, Options{Recover: time.Minute})
	says(t, s.run(), errTest.Error())
	says(t, r.wait(), errTest.Error())
	s.stayed()
}

// A destination that is ready to run hears of a cancel at once.
func TestADestinationThatIsReadyHearsOfACancel(t *testing.T) {
	drainFor(t, patience)
	l := &ledger{}
	r := receiveWith(t, l, DestinationOptions{Recover: time.Minute}, buildOwned(t, l, nil))
	var s *sender
	_, addr := newProxy(t, r.addr, func(at point, message []byte) (int, bool) {
		if at.name == "LOADED" {
			if err := s.source.Cancel(); err != nil {
				t.Error(err)
			}
		}
		return len(message), false
	})
	s = send(t, l, addr, Options{})
	if err := s.run(); !errors.Is(err, ErrCancelled) {
		t.Errorf("Run: %v", err)
	}
	says(t, r.wait(), "the source keeps the VM")
	s.stayed()
}

// The source forgets the guest, and reports success, only when it has heard
// SHUT: an end of file tells the destination nothing about that.
func TestAShutThatWasLostIsSaidAgain(t *testing.T) {
	l := &ledger{}
	r := receiveWith(t, l, DestinationOptions{Recover: time.Minute}, buildOwned(t, l, nil))
	s := send(t, l, newSwallower(t, r.addr, "SHUT", true), Options{Recover: time.Minute})
	if err := s.run(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := r.wait(); err != nil {
		t.Errorf("Receive: %v", err)
	}
	if s.report.Recoveries != 1 {
		t.Errorf("%d recoveries", s.report.Recoveries)
	}
}
