package migration

import (
	"context"
	"errors"
	"testing"

	"microvm/migration/wire"
)

// A destination that gives up says why, in full, before it hangs up.
func TestADestinationSaysWhyItGivesUp(t *testing.T) {
	t.Run("builder", func(t *testing.T) {
		l := &ledger{}
		r := receiveWith(t, l, DestinationOptions{}, func(context.Context, []byte) (DestinationMachine, error) { return nil, errTest })
		s := send(t, l, r.addr, Options{})
		err := s.run()
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Reason != errTest.Error() {
			t.Errorf("error %v, want a *RefusedError with %q", err, errTest)
		}
		s.stayed()
	})
	t.Run("page size", func(t *testing.T) {
		l := &ledger{}
		r := receive(t, l, nil)
		_, addr := newProxy(t, r.addr, func(at point, message []byte) (int, bool) {
			if at.name == "POSTCOPY_ADVISE" {
				copy(message, wire.Advise{TargetPageSize: 4 * wire.PageSize, PageSizes: []uint64{2 << 20, 4096}}.Append(nil))
			}
			return len(message), false
		})
		s := send(t, l, addr, Options{})
		err := s.run()
		var refused *RefusedError
		if !errors.As(err, &refused) {
			t.Errorf("error %v, want a *RefusedError", err)
		}
		says(t, err, "16384", "4096")
		s.stayed()
	})
	t.Run("device", func(t *testing.T) {
		l := &ledger{}
		r := receive(t, l, func(m *testMachine) { m.device.loadErr = errTest })
		s := send(t, l, r.addr, Options{})
		err := s.run()
		var failed *FailedError
		if !errors.As(err, &failed) {
			t.Errorf("error %v, want a *FailedError", err)
		}
		says(t, err, `device "test0"`, errTest.Error())
		s.stayed()
	})
	t.Run("older device", func(t *testing.T) {
		l := &ledger{}
		r := receive(t, l, nil)
		s := sendAs(t, l, r.addr, Options{}, sentSizes, func(m sourceSide) SourceMachine { m.device.version = 2; return m })
		err := s.run()
		var refused *RefusedError
		if !errors.As(err, &refused) {
			t.Errorf("error %v, want a *RefusedError", err)
		}
		says(t, err, `device "test0"`, "format 2", "up to 1")
		s.stayed()
	})
	// What the source had on its way when the destination gave up must not
	// cost it the reason.
	t.Run("in the middle of a long message", func(t *testing.T) {
		r := receive(t, &ledger{}, nil)
		s := newRawSource(t, r.addr)
		s.send(wire.Message(wire.TypePackaged, make([]byte, 16<<20)))
		f := wire.DecodeFailed(s.next(wire.ReturnFailed))
		says(t, errors.New(f.Text), "PACKAGED", "phase setup")
	})
}
