package migration

import (
	"bufio"
	"encoding/json"
	"testing"
	"time"

	"microvm/migration/wire"
)

// A source that comes back sends its checksums from the start, however many of
// them had arrived.
func TestVerifyCountsChecksumsOnceAroundABrokenConnection(t *testing.T) {
	l := &ledger{}
	r := receiveWith(t, l, DestinationOptions{Recover: time.Hour}, buildOwned(t, l, nil))
	s := &rawSource{t: t, buf: make([]byte, wire.MaxReturnBody)}
	id := newID()
	dial := func(resume bool) {
		for _, role := range []wire.Role{wire.RoleMain, wire.RoleUrgent} {
			h := helloOf(id, role)
			h.Resume = resume
			c, w := open(t, r.addr, h)
			if w.Version != wire.Version {
				t.Fatalf("refused: %s", w.Refusal)
			}
			if role == wire.RoleMain {
				s.main, s.back = c, bufio.NewReader(c)
			} else {
				s.urgent = c
			}
		}
	}
	sums := make([]uint32, 256)
	for i := range sums {
		sums[i] = zeroSum
	}
	first := wire.Checksums{Block: 0, Sums: sums}.Append(nil)
	second := wire.Checksums{Block: 1, Sums: sums[:1]}.Append(nil)

	dial(false)
	s.send(config(func(c *wire.Config) { c.Verify = true }), advise(), packageOf(listenMessage, stateMessage))
	s.next(wire.ReturnLoaded)
	s.send(runMessage)
	s.next(wire.ReturnRunning)
	s.send(first, wire.Ping(7))
	s.next(wire.ReturnPong)
	s.main.Close()
	r.reach(PhasePaused)

	dial(true)
	s.send(wire.Message(wire.TypeResume, nil))
	for range 2 {
		s.next(wire.ReturnRecvBitmap)
	}
	s.next(wire.ReturnResumeAck)
	s.send(zeros(0, 0, 256), zeros(1, 0, 1), first, second)
	s.urgent.Write(wire.Complete{}.Append(nil))
	s.send(wire.Complete{}.Append(nil))
	var last stats
	for {
		typ, body, err := wire.ReadReturn(s.back, s.buf)
		if err != nil {
			t.Fatal(err)
		}
		if typ == wire.ReturnShut {
			break
		}
		if err := json.Unmarshal(body, &last); err != nil {
			t.Fatal(err)
		}
	}
	s.send(wire.Message(wire.TypeEnd, nil))
	if last.Verified == nil || !*last.Verified {
		t.Errorf("verified %v: %s", last.Verified, last.Problem)
	}
	if err := r.wait(); err != nil {
		t.Errorf("Receive: %v", err)
	}
}
