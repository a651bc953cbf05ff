package migration

import (
	"fmt"
	"testing"
	"time"

	"microvm/migration/wire"
)

// spreadOver fails the test unless the report tells of n multi channels, all of
// which carried memory, while main did not.
func spreadOver(t *testing.T, r *Report, n int) {
	t.Helper()
	if r.Channels != 2+n || len(r.ChannelBytes) != 2+n {
		t.Fatalf("%d channels, bytes %v", r.Channels, r.ChannelBytes)
	}
	var sum uint64
	for i, b := range r.ChannelBytes {
		sum += b
		if i >= 2 && b < wire.PageSize {
			t.Errorf("multi channel %d carried %d bytes: %v", i-2, b, r.ChannelBytes)
		}
	}
	if sum != r.RAM.BytesWire {
		t.Errorf("channels carried %d bytes, the report says %d", sum, r.RAM.BytesWire)
	}
	if main := r.ChannelBytes[0]; main > r.RAM.BytesWire/8 {
		t.Errorf("main carried %d bytes of %d", main, r.RAM.BytesWire)
	}
}

func TestMemoryMovesOverAnyNumberOfConnections(t *testing.T) {
	for _, n := range []int{2, 4, MaxConnections} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			mv := migrate(t, Options{Verify: true, Connections: n}, func(_, dst *testMachine) { dst.guests = 2 }, 48<<20, 4096, 1<<20)
			mv.completed(t)
			r := mv.report
			if r.Verified == nil || !*r.Verified {
				t.Errorf("verified: %v, error %q", r.Verified, r.Error)
			}
			if got := r.RAM.PagesZero + r.RAM.PagesPostcopy; got != r.RAM.PagesTotal {
				t.Errorf("%d pages sent, %d in all: pages are sent once", got, r.RAM.PagesTotal)
			}
			spreadOver(t, r, n)
		})
	}
}

// What is sent in one pass and again in the next may go by two connections: the
// later has to win, or the guest goes on with memory of the past.
func TestPassesOverSeveralConnectionsDoNotOvertakeOneAnother(t *testing.T) {
	for _, opt := range []Options{
		{Mode: ModeHybrid, Rounds: 4, Connections: 4},
		{Mode: ModePrecopy, Downtime: time.Hour, Connections: 4},
	} {
		t.Run(string(opt.Mode), func(t *testing.T) {
			src := newBusyMachine(t, 16<<20, 1<<20, 10*time.Microsecond)
			mv := moveBusy(t, src, opt)
			mv.completed(t)
			if v := mv.report.Verified; v == nil || !*v {
				t.Errorf("not verified: %q", mv.report.Error)
			}
			spreadOver(t, mv.report, 4)
		})
	}
}

// page is a RAM message of one page filled with a byte.
func page(number uint64, fill byte) []byte {
	b := wire.AppendRAM(nil, wire.RAM{Kind: wire.KindData, Count: 1, First: number})
	for range wire.PageSize {
		b = append(b, fill)
	}
	return b
}

// firstByte reads a page's first byte the way a vCPU would, and 0 of one that
// is absent.
func firstByte(t *testing.T, m *testMachine, number uint64) byte {
	t.Helper()
	if !m.blocks[0].Present(number) {
		return 0
	}
	reader, err := newSyscallReader()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.close()
	got, err := reader.firstByte(m.blocks[0].Addr() + uintptr(number)*wire.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestSyncKeepsOrderBetweenChannels has what is later on the wire arrive first.
func TestSyncKeepsOrderBetweenChannels(t *testing.T) {
	begin := func(t *testing.T) (*rawSource, *testMachine) {
		var built *testMachine
		r := receive(t, &ledger{}, func(m *testMachine) { built = m })
		s := newRawMultiSource(t, r.addr, 2)
		s.advised()
		return s, built
	}
	// met sees to it that all that was sent has been dealt with.
	met := func(s *rawSource, seq uint32) {
		for _, c := range s.multi {
			c.Write(wire.Sync(seq))
		}
		s.send(wire.Sync(seq), wire.Ping(9))
		s.next(wire.ReturnPong)
	}
	t.Run("a page that is sent again", func(t *testing.T) {
		s, m := begin(t)
		s.send(wire.Sync(1))
		s.multi[1].Write(append(wire.Sync(1), page(3, 'b')...))
		s.multi[0].Write(append(page(3, 'a'), wire.Sync(1)...))
		met(s, 2)
		if got := firstByte(t, m, 3); got != 'b' {
			t.Errorf("the page has %q, want what was sent last, 'b'", got)
		}
	})
	t.Run("RAM_DISCARD", func(t *testing.T) {
		s, m := begin(t)
		s.send(wire.Sync(1), wire.Discard{Block: "ram0", Ranges: []wire.Range{{First: 3, Count: 1}}}.Append(nil))
		s.multi[1].Write(wire.Sync(1))
		s.multi[0].Write(append(page(3, 'a'), wire.Sync(1)...))
		met(s, 2)
		if got := firstByte(t, m, 3); got != 0 {
			t.Errorf("the page has %q; it was to be dropped", got)
		}
	})
	t.Run("the switch", func(t *testing.T) {
		s, m := begin(t)
		s.multi[1].Write(append(page(3, 'a'), wire.Sync(1)...))
		s.send(wire.Sync(1), packageOf(listenMessage, stateMessage))
		// From LISTEN on what is there stays: this has to come before it.
		s.multi[0].Write(append(page(3, 'b'), wire.Sync(1)...))
		s.next(wire.ReturnLoaded)
		if got := firstByte(t, m, 3); got != 'a' && got != 'b' {
			t.Errorf("LISTEN came before the page: it has %q", got)
		}
	})
	t.Run("COMPLETE", func(t *testing.T) {
		s, m := begin(t)
		s.send(packageOf(listenMessage, stateMessage))
		s.next(wire.ReturnLoaded)
		s.send(runMessage)
		s.next(wire.ReturnRunning)
		s.send(wire.Sync(1), wire.Complete{DataPages: 1, ZeroPages: 256}.Append(nil))
		s.urgent.Write(append(zeros(1, 0, 1), wire.Complete{}.Append(nil)...))
		s.multi[0].Write(append(zeros(0, 0, 128), wire.Sync(1)...))
		s.multi[1].Write(append(zeros(0, 129, 127), append(page(128, 'z'), wire.Sync(1)...)...))
		s.next(wire.ReturnShut)
		if got := firstByte(t, m, 128); got != 'z' {
			t.Errorf("SHUT 0 without page 128: it has %q", got)
		}
	})
}

// One of many connections that breaks in the push ends them all, and all of them
// are made again.
func TestOneConnectionThatBreaksIsMadeAgainWithAllOthers(t *testing.T) {
	l := &ledger{}
	r := receiveWith(t, l, DestinationOptions{Recover: time.Minute}, buildOwned(t, l, nil))
	cut := []trouble{{what: mishapCutOne, after: 1 << 20}}
	_, addr := newStorm(t, r.addr, outbreak{message: "RAM"}, cut)
	s := sendAs(t, l, addr, Options{Connections: 4, Verify: true, Recover: time.Minute}, []uint64{32 << 20, 4096}, func(m sourceSide) SourceMachine { return m })
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	if v := s.report.Verified; s.report.Recoveries != 1 || v == nil || !*v {
		t.Errorf("%d recoveries, %q", s.report.Recoveries, s.report.Error)
	}
	spreadOver(t, s.report, 4)
}

// A limit is one for all connections: four of them are no way around it.
func TestALimitOfBandwidthIsForAllConnectionsTogether(t *testing.T) {
	const rate = 16 << 20
	opt := Options{Connections: 4, PushBandwidth: rate}
	mv := migrate(t, opt, nil, 8<<20)
	mv.completed(t)
	// What was let through at once: a burst, and a batch of each that had
	// nothing to pay for yet.
	free := uint64(limiterBurst + 4*batchBytes)
	if least := time.Duration(mv.report.RAM.BytesWire-free) * time.Second / rate; time.Duration(mv.report.PostcopyNS) < least {
		t.Errorf("%d bytes in %v, at least %v at %d bytes/s", mv.report.RAM.BytesWire, time.Duration(mv.report.PostcopyNS), least, rate)
	}
}

func TestNumbersOfConnectionsOutOfBoundsAreRefused(t *testing.T) {
	for _, n := range []int{-1, MaxConnections + 1} {
		if _, err := NewSource(newTestMachine(t, 4096), Address{}, Options{Connections: n}); err == nil {
			t.Errorf("%d connections accepted", n)
		}
	}
	l := &ledger{}
	r := receiveWith(t, l, DestinationOptions{MaxConnections: 2}, buildOwned(t, l, nil))
	s := send(t, l, r.addr, Options{Connections: 4})
	says(t, s.run(), "migration refused", "over 4 connections", "at most 2")
	s.stayed()
	s = send(t, l, r.addr, Options{Connections: 2})
	if err := s.run(); err != nil {
		t.Errorf("with as many as are allowed: %v", err)
	}
}
