package migration

import (
	"testing"

	"microvm/migration/wire"
)

// What the destination says comes in one order only.
func TestRunningIsForAfterRun(t *testing.T) {
	t.Run("early", func(t *testing.T) {
		s := send(t, &ledger{}, newRawDest(t, toPackage(func(d *rawDest) {
			d.send(ran, wire.AppendLoaded(nil, 1))
			d.until(wire.TypeComplete)
			d.send(shut0)
		})), Options{})
		says(t, s.run(), "RUNNING")
		s.stayed()
	})
	t.Run("again", func(t *testing.T) {
		s := send(t, &ledger{}, newRawDest(t, toComplete(func(d *rawDest) { d.send(ran, shut0) })), Options{})
		says(t, s.run(), "RUNNING", "second time")
		s.gone()
	})
}

func TestLoadedComesOnce(t *testing.T) {
	s := send(t, &ledger{}, newRawDest(t, toComplete(func(d *rawDest) { d.send(wire.AppendLoaded(nil, 1), shut0) })), Options{})
	says(t, s.run(), "LOADED", "out of place")
	s.gone()
}

// It would be taken for the account of what has arrived.
func TestARecvBitmapOnAFirstSessionIsRefused(t *testing.T) {
	all := make([]byte, 32)
	for i := range all {
		all[i] = 0xFF
	}
	s := send(t, &ledger{}, newRawDest(t, toPing(func(d *rawDest) {
		d.send(wire.AppendRecvBitmap(nil, "ram0", 0, all), wire.AppendRecvBitmap(nil, "ram1", 0, []byte{1}), wire.AppendResumeAck(nil, wire.ResumeLoaded))
		d.until(wire.TypePackaged)
		d.running()
		d.until(wire.TypeComplete)
		d.send(shut0)
	})), Options{})
	says(t, s.run(), "RECV_BITMAP")
	s.stayed()
}

// A package arms userfaultfd by the LISTEN in it.
func TestAPackageWithoutListenIsRefused(t *testing.T) {
	r := receive(t, &ledger{}, nil)
	s := newRawSource(t, r.addr)
	s.advised()
	s.send(packageOf())
	says(t, r.wait(), "POSTCOPY_LISTEN")
}
