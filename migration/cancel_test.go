package migration

import (
	"errors"
	"testing"
	"time"
)

func TestCancelBeforeRunLeavesTheGuestWhereItIs(t *testing.T) {
	for _, stage := range stages {
		t.Run(stage.name, func(t *testing.T) {
			l := &ledger{}
			addr, reached, let := stage.hold(t, l)
			s := send(t, l, addr, Options{})
			wait := s.start()
			<-reached
			for range 2 {
				if err := s.source.Cancel(); err != nil {
					t.Errorf("Cancel: %v", err)
				}
			}
			if err := wait(); !errors.Is(err, ErrCancelled) {
				t.Errorf("Run: %v", err)
			}
			let()
			s.stayed()
			if s.report.Result != ResultCancelled {
				t.Errorf("result %q", s.report.Result)
			}
			if p := s.source.Phase(); p != PhaseCancelled {
				t.Errorf("phase %s", p)
			}
		})
	}
	t.Run("before it began", func(t *testing.T) {
		l := &ledger{}
		r := receive(t, l, nil)
		s := send(t, l, r.addr, Options{})
		if err := s.source.Cancel(); err != nil {
			t.Errorf("Cancel: %v", err)
		}
		if err := s.run(); !errors.Is(err, ErrCancelled) {
			t.Errorf("Run: %v", err)
		}
		s.stayed()
	})
	t.Run("while it pauses", func(t *testing.T) {
		l := &ledger{}
		r := receive(t, l, nil)
		s := send(t, l, r.addr, Options{})
		s.machine.onPause = func() { s.source.Cancel() }
		if err := s.run(); !errors.Is(err, ErrCancelled) {
			t.Errorf("Run: %v", err)
		}
		s.stayed()
	})
}

func TestATimeoutBeforeRunLeavesTheGuestWhereItIs(t *testing.T) {
	for _, stage := range stages {
		t.Run(stage.name, func(t *testing.T) {
			l := &ledger{}
			addr, _, let := stage.hold(t, l)
			s := send(t, l, addr, Options{Timeout: 300 * time.Millisecond})
			if err := s.run(); !errors.Is(err, ErrTimeout) {
				t.Errorf("Run: %v, want %v", err, ErrTimeout)
			}
			let()
			s.stayed()
			if s.report.Result != ResultFailed {
				t.Errorf("result %q", s.report.Result)
			}
		})
	}
}
