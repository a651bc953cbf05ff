package migration

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

// beforeRun are all messages that pass before POSTCOPY_RUN, on every channel.
func beforeRun() []point {
	points := []point{
		{mainLeg, "hello", 1}, {returnLeg, "welcome", 1},
		{urgentLeg, "hello", 1}, {urgentBack, "welcome", 1},
		{mainLeg, "OPEN_RETURN_PATH", 1}, {mainLeg, "CONFIG", 1}, {mainLeg, "POSTCOPY_ADVISE", 1},
	}
	for n := 1; n <= 4; n++ {
		points = append(points, point{mainLeg, "PING", n}, point{returnLeg, "PONG", n})
	}
	return append(points, point{mainLeg, "PACKAGED", 1}, point{returnLeg, "LOADED", 1})
}

// greeting tells whether a point is before the destination has all channels
// of a source: it then goes on waiting for one.
func (p point) greeting() bool { return p.name == "hello" || p.name == "welcome" }

// Where in a message a connection breaks.
var cuts = []struct {
	name string
	pass func(n int) int // bytes that still pass, of n
}{
	{"before", func(int) int { return 0 }},
	{"inside", func(n int) int { return n / 2 }},
	{"after", func(n int) int { return n }},
}

// broken runs a migration whose connections all break at a point.
func broken(t *testing.T, at point, pass func(n int) int) (*sender, *receiver) {
	t.Helper()
	l := &ledger{}
	r := receive(t, l, nil)
	proxy, addr := newProxy(t, r.addr, func(p point, message []byte) (int, bool) {
		if p == at {
			return pass(len(message)), true
		}
		return len(message), false
	})
	s := send(t, l, addr, Options{Verify: true})
	s.run()
	if !proxy.saw(at) {
		t.Fatalf("%v never came: %v", at, s.err)
	}
	return s, r
}

func TestConnectionsThatBreakBeforeRunCostNothing(t *testing.T) {
	for _, at := range beforeRun() {
		for _, c := range cuts {
			// What the source has in hand it acts on.
			if at.name == "LOADED" && c.name == "after" {
				continue
			}
			t.Run(fmt.Sprintf("%s %v", c.name, at), func(t *testing.T) {
				s, r := broken(t, at, c.pass)
				if at.greeting() {
					r.cancel()
				}
				if err := r.wait(); err == nil {
					t.Error("the destination ended without an error")
				}
				s.stayed()
			})
		}
	}
}

func TestADestinationThatDiesBeforeRunCostsNothing(t *testing.T) {
	for _, at := range beforeRun() {
		t.Run(at.String(), func(t *testing.T) {
			l := &ledger{}
			r := receive(t, l, nil)
			_, addr := newProxy(t, r.addr, func(p point, message []byte) (int, bool) {
				if p != at {
					return len(message), false
				}
				if err := r.kill(); !errors.Is(err, context.Canceled) {
					t.Errorf("the destination ended with %v", err)
				}
				return 0, true
			})
			s := send(t, l, addr, Options{})
			s.run()
			s.stayed()
			r.wait()
		})
	}
}

func TestADestinationThatDiesWhileItBuildsOrLoadsCostsNothing(t *testing.T) {
	t.Run("builds", func(t *testing.T) {
		l := &ledger{}
		build, _ := builderOf(t, nil)
		var r *receiver
		r = receiveWith(t, l, DestinationOptions{}, func(ctx context.Context, config []byte) (DestinationMachine, error) {
			r.cancel()
			return build(ctx, config)
		})
		s := send(t, l, r.addr, Options{})
		s.run()
		s.stayed()
		if err := r.wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("the destination ended with %v", err)
		}
	})
	t.Run("loads", func(t *testing.T) {
		l := &ledger{}
		sourceKnows := make(chan struct{})
		var r *receiver
		r = receive(t, l, func(m *testMachine) {
			m.device.touch = func() error {
				r.cancel()
				<-sourceKnows // LOADED must not win the race
				return nil
			}
		})
		s := send(t, l, r.addr, Options{})
		s.run()
		close(sourceKnows)
		s.stayed()
		if err := r.wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("the destination ended with %v", err)
		}
	})
}

// The destination may or may not have got RUN, so that the source must not run
// the guest again, whatever it thinks of it.
func TestAConnectionThatBreaksAtRunNeverMakesTwoOwners(t *testing.T) {
	for _, at := range []point{{mainLeg, "POSTCOPY_RUN", 1}, {returnLeg, "RUNNING", 1}} {
		for _, c := range cuts {
			t.Run(fmt.Sprintf("%s %v", c.name, at), func(t *testing.T) {
				s, r := broken(t, at, c.pass)
				err := r.kill()
				s.gone()
				var lost *LostError
				switch ran := r.ledger.ran; {
				case ran == 0 && (at.name == "RUNNING" || err == nil || errors.As(err, &lost)):
					t.Errorf("the destination never ran and ended with %v", err)
				case ran != 0 && at.name == "POSTCOPY_RUN" && c.name != "after":
					t.Error("the destination ran without a whole POSTCOPY_RUN")
				case ran == 1 && (!errors.As(err, &lost) || r.ledger.abandoned == 0):
					t.Errorf("the destination ran, was abandoned %d times and ended with %v", r.ledger.abandoned, err)
				case ran > 1:
					t.Errorf("the destination ran %d times", ran)
				}
			})
		}
	}
}

// Everything may have arrived, but only SHUT says so.
func TestOnlyShutIsSuccess(t *testing.T) {
	for _, at := range []point{
		{mainLeg, "RAM", 1}, {mainLeg, "CHECKSUMS", 1}, {mainLeg, "COMPLETE", 1},
		// Not COMPLETE on urgent: SHUT need not wait for it.
		{returnLeg, "SHUT", 1},
	} {
		for _, c := range cuts {
			t.Run(fmt.Sprintf("%s %v", c.name, at), func(t *testing.T) {
				s, r := broken(t, at, c.pass)
				if at.name == "SHUT" {
					if err := r.wait(); err != nil {
						t.Errorf("the destination had everything and ended with %v", err)
					}
				}
				r.kill()
				if at.name == "SHUT" && c.name == "after" {
					if s.err != nil || s.report.Result != ResultCompleted {
						t.Errorf("result %q, error %v", s.report.Result, s.err)
					}
					return
				}
				s.gone()
			})
		}
	}
}
