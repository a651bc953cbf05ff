package migration

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"microvm/migration/wire"
)

// newOutage stands in front of target and lets nothing pass from a message on,
// until over is called.
func newOutage(t *testing.T, target Address, from point) (addr Address, over func()) {
	var out, was atomic.Bool
	var p *proxy
	p, addr = newProxy(t, target, func(at point, message []byte) (int, bool) {
		if at == from && !was.Swap(true) {
			out.Store(true)
		}
		if !out.Load() {
			return len(message), false
		}
		go p.drop()
		return 0, false
	})
	return addr, func() { out.Store(false) }
}

// arrived fails the test unless the whole guest is at the destination, after
// connections were opened again this many times.
func (s *sender) arrived(r *receiver, rep *Report, err error, recoveries int) {
	s.t.Helper()
	if err != nil || rep.Result != ResultCompleted || rep.Owner != OwnerDestination || rep.Error != "" {
		s.t.Fatalf("not completed: %v, report %+v", err, rep)
	}
	if rep.Verified == nil || !*rep.Verified || rep.Recoveries != recoveries || rep.PostcopyNS > rep.TotalNS {
		s.t.Errorf("report: verified %v, recoveries %d, postcopy %d ns of %d", rep.Verified, rep.Recoveries, rep.PostcopyNS, rep.TotalNS)
	}
	if err := r.wait(); err != nil {
		s.t.Errorf("Receive: %v", err)
	}
	if l := s.ledger; l.ran != 1 || l.stopped != 0 || l.source || l.both {
		s.t.Errorf("%+v", l)
	}
	if got := s.source.Phase(); got != PhaseCompleted {
		s.t.Errorf("the source is in phase %s", got)
	}
}

// The source tries for a moment only, the destination not even that; the guest
// needs pages, so that nobody may forget it.
func TestAMigrationThatIsPausedCanBeTakenUpByAPerson(t *testing.T) {
	for _, from := range []point{{returnLeg, "RUNNING", 1}, {mainLeg, "RAM", 1}, {mainLeg, "COMPLETE", 1}} {
		for _, where := range []string{"the same address", "another address"} {
			t.Run(from.String()+", "+where, func(t *testing.T) {
				l := &ledger{}
				r := receiveWith(t, l, DestinationOptions{}, buildOwned(t, l, func(m *testMachine) { m.guests = 1 }))
				addr, over := newOutage(t, r.addr, from)
				s := send(t, l, addr, Options{Verify: true, Recover: 20 * time.Millisecond})
				s.run()
				s.gone()
				paused := *s.report
				r.reach(PhasePaused)
				// Nobody is there yet.
				rep, err := s.source.Resume(t.Context(), Address{}, time.Millisecond)
				if !errors.As(err, new(*PausedError)) || rep.Result != ResultPaused || s.source.Phase() != PhasePostcopyPaused {
					t.Fatalf("resumed during the outage: %v, report %+v", err, rep)
				}
				to := r.addr
				if where == "the same address" {
					over()
					to = Address{}
				}
				rep, err = s.source.Resume(t.Context(), to, time.Minute)
				s.arrived(r, rep, err, 1)
				if s.report.Result != paused.Result || s.report.Error != paused.Error {
					t.Error("the report that Run gave has changed")
				}
				if got := s.source.Destination(); where == "another address" && got != r.addr {
					t.Errorf("the guest went to %s", got)
				}
			})
		}
	}
}

// The main channel of an attempt that its source gave up may come late, behind
// the connections of the attempt that got through. It does not break them.
func TestAnAttemptThatWasGivenUpDoesNotBreakWhatCameOfTheNext(t *testing.T) {
	l := &ledger{}
	r := receiveWith(t, l, DestinationOptions{}, buildOwned(t, l, nil))
	var s *sender
	_, addr := newProxy(t, r.addr, func(at point, message []byte) (int, bool) {
		if at == (point{mainLeg, "RAM", 2}) {
			h := helloOf(s.source.id, wire.RoleMain)
			h.Resume = true
			late, w := open(t, r.addr, h)
			if w.Version != wire.Version {
				t.Errorf("refused: %s", w.Refusal)
			}
			late.Close()
		}
		return len(message), false
	})
	s = send(t, l, addr, Options{Verify: true})
	err := s.run()
	s.arrived(r, s.report, err, 0)
}

// While the source tries by itself, waits between two attempts, or hangs in
// one, another address counts at once.
func TestAPersonMayChangeTheAddressWhileTheSourceTries(t *testing.T) {
	l := &ledger{}
	r := receiveWith(t, l, DestinationOptions{}, buildOwned(t, l, nil))
	addr, _ := newOutage(t, r.addr, point{mainLeg, "RAM", 1})
	stuck, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	nowhere := newRawDest(t, func(d *rawDest) {
		d.until(wire.TypeResume)
		close(stuck)
		<-release
	})
	s := send(t, l, addr, Options{Verify: true, Recover: time.Hour})
	if s.source.Redirect(nowhere, time.Hour) {
		t.Error("redirected before it began")
	}
	wait := s.start()
	redirect := func(to Address) {
		t.Helper()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for late := time.After(patience); !s.source.Redirect(to, time.Hour); {
			select {
			case <-tick.C:
			case <-late:
				t.Fatalf("not to be redirected, in phase %s", s.source.Phase())
			}
		}
	}
	redirect(nowhere)
	<-stuck
	if _, err := s.source.Resume(t.Context(), r.addr, time.Hour); !errors.Is(err, ErrNotPaused) {
		t.Errorf("Resume of what goes on: %v", err)
	}
	redirect(r.addr)
	err := wait()
	s.arrived(r, s.report, err, 1)
	if s.source.Redirect(nowhere, time.Hour) {
		t.Error("redirected after the end")
	}
}

func TestWhatIsNotPausedCannotBeTakenUp(t *testing.T) {
	l := &ledger{}
	r := receive(t, l, nil)
	s := send(t, l, r.addr, Options{})
	for range 2 {
		_, err := s.source.Resume(t.Context(), r.addr, time.Minute)
		if !errors.Is(err, ErrNotPaused) {
			t.Errorf("Resume: %v", err)
		}
		says(t, err, "it is "+string(s.source.Phase()))
		if s.source.Phase() == PhaseSetup {
			s.run()
		}
	}
	if s.err != nil {
		t.Error(s.err)
	}
}

// POSTCOPY_RUN was lost, and the destination has given up since: whoever takes
// the migration up gets the guest back.
func TestAMigrationThatIsTakenUpMayBeDeclined(t *testing.T) {
	drainFor(t, patience)
	l := &ledger{}
	r := receiveWith(t, l, DestinationOptions{Recover: time.Hour}, buildOwned(t, l, nil))
	addr, _ := newOutage(t, r.addr, point{mainLeg, "POSTCOPY_RUN", 1})
	s := send(t, l, addr, Options{})
	s.run()
	s.gone()
	if !r.dest.GiveUp() {
		t.Fatal("GiveUp is refused before RUN has arrived")
	}
	s.report, s.err = s.source.Resume(t.Context(), r.addr, time.Minute)
	if !errors.As(s.err, new(*FailedError)) {
		t.Errorf("Resume: %v", s.err)
	}
	s.stayed()
	if err := r.wait(); !errors.Is(err, ErrGivenUp) {
		t.Errorf("Receive: %v", err)
	}
}

// Resume tries no longer than whoever called it wants.
func TestTakingUpEndsWithItsContext(t *testing.T) {
	l := &ledger{}
	r := receiveWith(t, l, DestinationOptions{}, buildOwned(t, l, nil))
	addr, _ := newOutage(t, r.addr, point{mainLeg, "RAM", 1})
	s := send(t, l, addr, Options{Verify: true})
	s.run()
	s.gone()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := s.source.Resume(ctx, Address{}, time.Hour); !errors.As(err, new(*PausedError)) {
		t.Errorf("Resume: %v", err)
	}
	rep, err := s.source.Resume(t.Context(), r.addr, time.Minute)
	s.arrived(r, rep, err, 1)
}

// A guest that ends needs no source any more, and is waited for no longer than
// that takes to hear.
func TestAGuestThatEndsWithoutItsSourceIsNotLost(t *testing.T) {
	l := &ledger{}
	var m *testMachine
	r := receiveWith(t, l, DestinationOptions{Recover: time.Millisecond}, buildOwned(t, l, func(built *testMachine) { m = built }))
	addr, _ := newOutage(t, r.addr, point{mainLeg, "RAM", 1})
	s := send(t, l, addr, Options{})
	s.run()
	s.gone()
	r.reach(PhasePaused)
	close(m.done)
	if err := r.wait(); err != nil {
		t.Errorf("Receive: %v", err)
	}
}

// failingListener cannot accept at first.
type failingListener struct {
	net.Listener
	failures atomic.Int32
}

func (l *failingListener) Accept() (net.Conn, error) {
	if l.failures.Add(-1) >= 0 {
		return nil, unix.EMFILE
	}
	return l.Listener.Accept()
}

func TestADestinationThatCannotAcceptTriesAgain(t *testing.T) {
	l := &ledger{}
	ln, err := Listen(t.Context(), Address{"tcp", "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	failing := &failingListener{Listener: ln}
	failing.failures.Store(2)
	d := NewDestination(buildOwned(t, l, nil), DestinationOptions{Log: quietLog(t)})
	received := make(chan error, 1)
	go func() { received <- d.Receive(t.Context(), failing) }()
	if err := send(t, l, ListenAddress(ln), Options{}).run(); err != nil {
		t.Error(err)
	}
	if err := <-received; err != nil {
		t.Error(err)
	}
}
