package migration

import (
	"errors"
	"strings"
	"testing"
	"time"

	"microvm/migration/wire"
)

// A channel that lies about where it belongs is told so, and the migration that
// it is not part of goes on.
func TestAChannelThatBelongsElsewhereIsRefused(t *testing.T) {
	r := receive(t, &ledger{}, nil)
	id := newID()
	hello := func(role wire.Role, index, multi uint8) wire.Hello {
		h := helloOf(id, role)
		h.Index, h.Multi = index, multi
		return h
	}
	refused := func(what string, h wire.Hello, want ...string) {
		t.Helper()
		_, w := open(t, r.addr, h)
		for _, word := range want {
			if w.Version != 0 || !strings.Contains(w.Refusal, word) {
				t.Errorf("%s: answered %+v, want a refusal with %q", what, w, word)
			}
		}
	}
	accepted := func(h wire.Hello) {
		t.Helper()
		if _, w := open(t, r.addr, h); w.Version != wire.Version {
			t.Fatalf("%s channel %d refused: %s", h.Role, h.Index, w.Refusal)
		}
	}
	refused("before main", hello(wire.RoleMulti, 0, 3), "without its main channel")
	accepted(hello(wire.RoleMain, 0, 3))
	stranger := hello(wire.RoleMulti, 0, 3)
	stranger.ID = newID()
	refused("another id", stranger, "another migration")
	again := hello(wire.RoleMulti, 0, 3)
	again.Resume = true
	refused("of a session that resumes", again, "another migration")
	refused("another count", hello(wire.RoleMulti, 0, 4), "there are 4 multi channels", "main channel said 3")
	refused("urgent with another count", hello(wire.RoleUrgent, 0, 0), "there are 0 multi channels", "main channel said 3")
	refused("past the end", hello(wire.RoleMulti, 3, 3), "multi channel 3", "announced 3")
	refused("urgent 1", hello(wire.RoleUrgent, 1, 3), "there is only number 0")
	accepted(hello(wire.RoleMulti, 1, 3))
	refused("twice", hello(wire.RoleMulti, 1, 3), "multi channel 1", "second one")
	accepted(hello(wire.RoleMulti, 2, 3))
	accepted(hello(wire.RoleUrgent, 0, 3))
	refused("urgent twice", hello(wire.RoleUrgent, 0, 3), "second one")
	accepted(hello(wire.RoleMulti, 0, 3))
	refused("one too many", hello(wire.RoleMulti, 0, 3), "or a second one")
	r.reach(PhaseSetup)
}

// A session of which a channel never comes is given up, and makes room.
func TestAChannelThatNeverComesKeepsNobodyOut(t *testing.T) {
	l := &ledger{}
	r := receive(t, l, nil)
	id := newID()
	main, _ := open(t, r.addr, wire.Hello{MinVersion: 1, MaxVersion: 1, ID: id, Role: wire.RoleMain, Multi: 2})
	urgent, _ := open(t, r.addr, wire.Hello{MinVersion: 1, MaxVersion: 1, ID: id, Role: wire.RoleUrgent, Multi: 2})
	multi, _ := open(t, r.addr, wire.Hello{MinVersion: 1, MaxVersion: 1, ID: id, Role: wire.RoleMulti, Multi: 2})
	for _, c := range []interface{ Read([]byte) (int, error) }{main, urgent, multi} {
		if n, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("%d bytes came", n)
		}
	}
	s := send(t, l, r.addr, Options{Verify: true, Connections: 2})
	if err := s.run(); err != nil {
		t.Errorf("the next migration: %v", err)
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestAHostileMultiChannelGetsAnErrorAndNoGuest(t *testing.T) {
	multi := func(n int, messages ...[]byte) func(*rawSource) {
		return func(s *rawSource) {
			for _, m := range messages {
				s.multi[n].Write(m)
			}
		}
	}
	for _, c := range []hostileSource{
		{"garbage", multi(1, []byte("GET / HTTP/1.1")), []string{"multi channel 1", "message type"}},
		{"PING", multi(0, wire.Ping(1)), []string{"multi channel 0", "PING"}},
		{"POSTCOPY_RUN", multi(0, runMessage), []string{"multi channel 0", "POSTCOPY_RUN"}},
		{"RAM of a block that is not there", multi(1, zeros(7, 0, 1)), []string{"multi channel 1", "RAM", "block 7 of 2"}},
		{"RAM cut off", func(s *rawSource) { s.multi[1].Write(page(0, 1)[:99]); s.multi[1].Close() }, []string{"multi channel 1", "RAM", "EOF"}},
		{"hangs up", func(s *rawSource) { s.multi[1].Close() }, []string{"multi channel 1", "closed", "EOF"}},
		{"SYNC 2 first", multi(0, wire.Sync(2)), []string{"multi channel 0", "SYNC", "number 2 after number 0"}},
		{"SYNC with half a number", multi(0, wire.Message(wire.TypeSync, []byte{1})), []string{"multi channel 0", "SYNC", "1 bytes"}},
		{"SYNC 2 on main", func(s *rawSource) { s.send(wire.Sync(2)) }, []string{"SYNC", "number 2 after number 0"}},
		{"hangs up while others wait for it", func(s *rawSource) {
			s.send(wire.Sync(1))
			s.multi[0].Write(wire.Sync(1))
			s.multi[1].Close()
		}, []string{"multi channel 1", "EOF"}},
		{"CANCEL while others wait", func(s *rawSource) {
			s.send(wire.Sync(1), wire.Cancel("disk full"))
			s.multi[0].Close()
			s.multi[1].Close()
		}, []string{"the source keeps the VM", "disk full"}},
		{"something else while others wait", func(s *rawSource) {
			s.send(wire.Sync(1), packageOf(listenMessage, stateMessage))
			s.multi[0].Close()
		}, []string{"multi channel 0", "EOF"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &ledger{}
			r := receive(t, l, nil)
			s := newRawMultiSource(t, r.addr, 2)
			s.advised()
			c.doing(s)
			says(t, r.wait(), c.want...)
			if l.ran != 0 {
				t.Error("it ran the guest")
			}
		})
	}
	t.Run("SYNC without multi channels", func(t *testing.T) {
		r := receive(t, &ledger{}, nil)
		s := newRawSource(t, r.addr)
		s.advised()
		s.send(wire.Sync(1))
		says(t, r.wait(), "SYNC", "without multi channels")
	})
}

// The order in which hostile channels deliver the same pages, and drop them,
// is nobody's problem but the guest's they belong to.
func TestChannelsThatRaceForTheSamePagesHarmNobody(t *testing.T) {
	r := receive(t, &ledger{}, nil)
	s := newRawMultiSource(t, r.addr, 4)
	s.advised()
	for round := range 50 {
		for i, c := range s.multi {
			c.Write(zeros(0, uint64(round*5), 5))
			c.Write(zeros(0, uint64(i), 250))
		}
		s.send(wire.Discard{Block: "ram0", Ranges: []wire.Range{{First: 0, Count: 256}}}.Append(nil))
	}
	// After every discard: what comes before a SYNC has no order among channels.
	for _, c := range s.multi {
		c.Write(append(wire.Sync(1), zeros(0, 0, 256)...))
		c.Write(wire.Sync(2))
	}
	s.send(wire.Sync(1), wire.Sync(2), packageOf(listenMessage, stateMessage))
	s.next(wire.ReturnLoaded)
	if left := r.dest.Status().PagesLeft; left != 1 {
		t.Errorf("%d pages left, want the one of ram1", left)
	}
}

// After RUN a channel that breaks pauses the migration, not the guest.
func TestAMultiChannelThatBreaksPausesTheMigration(t *testing.T) {
	l := &ledger{}
	r := receiveWith(t, l, DestinationOptions{Recover: time.Hour}, buildOwned(t, l, nil))
	s := newRawMultiSource(t, r.addr, 2)
	s.running()
	s.multi[1].Close()
	r.reach(PhasePaused)
	err := r.kill()
	var lost *LostError
	if !errors.As(err, &lost) {
		t.Errorf("given up with %v", err)
	}
	says(t, err, "multi channel 1")
}
