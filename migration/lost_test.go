package migration

import (
	"errors"
	"testing"

	"microvm/memslot"
	"microvm/migration/wire"
)

// A guest whose source is gone for good waits, in the kernel, for pages that
// never come, and no signal may get it out. Whoever gives it up is told so at
// once, and the guest never sees anything else in place of its pages.
func TestAGuestThatIsGivenUpNeverSeesMemoryThatIsNotItsOwn(t *testing.T) {
	for name, giveUp := range map[string]func(r *receiver){
		"Abandon":               func(r *receiver) { r.dest.Abandon() },
		"its context":           func(r *receiver) { r.cancel() },
		"a page that is broken": func(r *receiver) { r.dest.fail(errTest) },
	} {
		t.Run(name, func(t *testing.T) {
			l := &ledger{}
			var m *testMachine
			r := receiveWith(t, l, DestinationOptions{}, buildOwned(t, l, func(built *testMachine) { m = built; m.guests = 2 }))
			addr, _ := newOutage(t, r.addr, point{mainLeg, "RAM", 1})
			s := send(t, l, addr, Options{})
			s.run()
			s.gone()
			r.reach(PhasePaused)
			p := r.dest.pager.Load()
			t.Cleanup(func() { p.fd.Close(); m.mem.Wait() })
			giveUp(r)
			err := r.wait()
			var lost *LostError
			if !errors.As(err, &lost) {
				t.Errorf("Receive: %v, want a *LostError", err)
			}
			if l.abandoned != 1 || l.stopped != 0 || l.dest {
				t.Errorf("%+v", l)
			}
			if err := p.fd.Wake(m.blocks[0].Addr(), m.blocks[0].PageSize()); err != nil {
				t.Errorf("missing pages are not watched any more, and read as zeros: %v", err)
			}
			if n := m.wrong.Load(); n > 0 {
				t.Errorf("the guest read %d pages that are not its own", n)
			}
			var word [8]byte
			page, _ := m.blocks[0].NextAbsent(0)
			mem := memslot.NewMemory(nullRegions{}, 1)
			if err := mem.Map(0, 0, m.blocks[0], 0, m.blocks[0].Size(), 0); err != nil {
				t.Fatal(err)
			}
			if err := mem.ReadAt(word[:], page*m.blocks[0].PageSize()); !errors.As(err, &lost) {
				t.Errorf("a device that needs a page: %v", err)
			}
		})
	}
}

// While the source is there, it is told how the guest ends: Abandon is for when
// it is not.
func TestAbandonDoesNotCutAGuestOffItsSource(t *testing.T) {
	l := &ledger{}
	r := receive(t, l, nil)
	s := newRawSource(t, r.addr)
	s.running()
	r.dest.Abandon()
	s.send(zeros(0, 0, 256), zeros(1, 0, 1))
	s.urgent.Write(wire.Complete{}.Append(nil))
	s.send(wire.Complete{}.Append(nil))
	s.next(wire.ReturnShut)
	s.main.Close()
	// It has every page: all that is missing is that the source knows.
	if err := r.wait(); err != nil || l.abandoned != 0 || l.stopped != 0 {
		t.Errorf("Receive: %v; %+v", err, l)
	}
}
