package migration

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// breaks has the connections break at each of these messages of main and its
// return path, in this order, whoever says them.
func breaks(t *testing.T, target Address, messages ...string) Address {
	t.Helper()
	var p *proxy
	p, addr := newProxy(t, target, func(at point, message []byte) (int, bool) {
		if len(messages) == 0 || at.leg.role != mainLeg.role || at.name != messages[0] {
			return len(message), false
		}
		messages = messages[1:]
		// At once: what follows on this connection must not arrive without
		// what was lost. p.mu is held.
		for _, c := range p.conns {
			c.Close()
		}
		p.conns = nil
		return 0, false
	})
	return addr
}

// Wherever the connections break, in each phase that follows POSTCOPY_RUN and at
// each step of the handshake that mends them, they are mended: once, and once
// more for each time that they break again.
func TestRecoveryInEveryPhase(t *testing.T) {
	for _, first := range []string{"POSTCOPY_RUN", "RUNNING", "RAM", "STATS", "CHECKSUMS", "COMPLETE", "SHUT"} {
		again := []string{"", "POSTCOPY_RESUME", "RECV_BITMAP", "RESUME_ACK", "RECV_BITMAP RESUME_ACK POSTCOPY_RESUME"}
		if first == "POSTCOPY_RUN" {
			again = append(again, "POSTCOPY_RUN", "RESUME_ACK POSTCOPY_RUN RUNNING RAM")
		}
		for _, then := range again {
			t.Run(first+" "+then, func(t *testing.T) {
				l := &ledger{}
				r := receiveWith(t, l, DestinationOptions{Recover: time.Minute}, buildOwned(t, l, func(m *testMachine) {
					// STATS come while it waits for pages; that of the
					// end comes in any case.
					m.guests = 1
				}))
				messages := append([]string{first}, strings.Fields(then)...)
				s := send(t, l, breaks(t, r.addr, messages...), Options{Verify: true, Recover: time.Minute})
				err := s.run()
				s.arrived(r, s.report, err, s.report.Recoveries)
				// A handshake that breaks counts with the one that succeeds.
				if n := s.report.Recoveries; n < 1 || n > len(messages) {
					t.Errorf("%d recoveries, of %d breaks", n, len(messages))
				}
			})
		}
	}
}

// The destination may be told at any time that the VM stays, and only until the
// source has decided; from then on nobody is.
func TestCancelIsRefusedInEveryPhaseAfterRun(t *testing.T) {
	for _, at := range []string{"RUNNING", "RAM", "POSTCOPY_RESUME", "RECV_BITMAP", "RESUME_ACK", "COMPLETE", "SHUT", "END"} {
		t.Run(at, func(t *testing.T) {
			l := &ledger{}
			r := receiveWith(t, l, DestinationOptions{Recover: time.Minute}, buildOwned(t, l, nil))
			var s *sender
			var asked atomic.Bool
			_, addr := newProxy(t, breaks(t, r.addr, "RAM"), func(p point, message []byte) (int, bool) {
				if p.leg.role == mainLeg.role && p.name == at && !asked.Swap(true) {
					if err := s.source.Cancel(); err == nil {
						t.Error("Cancel is not refused")
					}
				}
				return len(message), false
			})
			s = send(t, l, addr, Options{Verify: true, Recover: time.Minute})
			err := s.run()
			s.arrived(r, s.report, err, 1)
			if !asked.Load() {
				t.Error("nobody asked")
			}
		})
	}
	t.Run("paused", func(t *testing.T) {
		l := &ledger{}
		r := receiveWith(t, l, DestinationOptions{}, buildOwned(t, l, nil))
		s := send(t, l, breaks(t, r.addr, "RAM"), Options{Verify: true})
		s.run()
		s.gone()
		if err := s.source.Cancel(); err == nil {
			t.Error("Cancel is not refused")
		}
		s.gone()
		rep, err := s.source.Resume(t.Context(), r.addr, time.Minute)
		s.arrived(r, rep, err, 1)
	})
}

// Until then it is obeyed, at whatever message the two are.
func TestCancelIsObeyedInEveryPhaseBeforeRun(t *testing.T) {
	for _, c := range []struct {
		mode        Mode
		connections int
	}{{ModePostcopy, 1}, {ModeHybrid, 1}, {ModePrecopy, 1}, {ModeHybrid, 4}} {
		mode := c.mode
		for _, at := range []string{"CONFIG", "POSTCOPY_ADVISE", "PONG", "RAM", "RAM_DISCARD", "PACKAGED", "LOADED"} {
			if at == "RAM" && mode == ModePostcopy || at == "RAM_DISCARD" && mode != ModeHybrid {
				continue
			}
			t.Run(fmt.Sprintf("%s over %d %s", mode, c.connections, at), func(t *testing.T) {
				l := &ledger{}
				r := receiveWith(t, l, DestinationOptions{}, buildOwned(t, l, nil))
				var s *sender
				var asked atomic.Bool
				_, addr := newProxy(t, r.addr, func(p point, message []byte) (int, bool) {
					if p.leg.role != urgentLeg.role && p.name == at && !asked.Swap(true) {
						if err := s.source.Cancel(); err != nil {
							t.Errorf("Cancel: %v", err)
						}
					}
					return len(message), false
				})
				s = sendBusy(t, l, addr, Options{Mode: mode, Connections: c.connections, Rounds: 2, Downtime: time.Hour})
				if err := s.run(); !errors.Is(err, ErrCancelled) {
					t.Errorf("Run: %v", err)
				}
				if err := r.wait(); err == nil || l.ran != 0 {
					t.Errorf("Receive: %v; it ran %d times", err, l.ran)
				}
				if !asked.Load() {
					t.Error("nobody asked")
				}
				if s.report.Result != ResultCancelled || s.report.Owner != OwnerSource || l.paused != l.resumed || l.handed != l.taken || !l.source {
					t.Errorf("%+v, report %+v", l, s.report)
				}
			})
		}
	}
}

// sendBusy is send of a machine whose guest writes.
func sendBusy(t *testing.T, l *ledger, a Address, opt Options) *sender {
	t.Helper()
	m := newBusyMachine(t, 1<<20, 1<<19, 100*time.Microsecond)
	l.change(func() { l.source = true })
	opt.Log = quietLog(t)
	s, err := NewSource(busySide{m, l}, a, opt)
	if err != nil {
		t.Fatal(err)
	}
	return &sender{t: t, ctx: t.Context(), machine: m.testMachine, ledger: l, source: s}
}
