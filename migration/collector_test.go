package migration

import (
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"testing"

	"microvm/migration/wire"
)

func collections() uint64 {
	sample := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

var garbage atomic.Pointer[[]byte]

// litter makes much more garbage than is left alone as a rule, and says how often
// garbage was collected meanwhile.
func litter() (times uint64) {
	before := collections()
	for range 256 {
		b := make([]byte, 64<<10)
		garbage.Store(&b)
	}
	return collections() - before
}

// TestNoGarbageIsCollectedWhileTheGuestStandsStill, on either side; when all is over,
// it is again.
func TestNoGarbageIsCollectedWhileTheGuestStandsStill(t *testing.T) {
	for side, migrate := range map[string]func(t *testing.T, still func()){
		"source": func(t *testing.T, still func()) {
			addr := newRawDest(t, func(d *rawDest) {
				d.until(wire.TypePackaged)
				d.hangUp()
			})
			s := send(t, &ledger{}, addr, Options{})
			s.machine.onPause = still
			if s.run() == nil {
				t.Error("the migration does not fail")
			}
		},
		"destination": func(t *testing.T, still func()) {
			l := &ledger{}
			r := receiveWith(t, l, DestinationOptions{}, buildOwned(t, l, func(m *testMachine) {
				m.device.touch = func() error {
					still()
					return nil
				}
			}))
			s := newRawSource(t, r.addr)
			s.loaded()
			s.main.Close()
			if r.wait() == nil {
				t.Error("the migration does not fail")
			}
		},
	} {
		t.Run(side, func(t *testing.T) {
			percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
			defer debug.SetGCPercent(percent)
			var stood atomic.Bool
			migrate(t, func() {
				stood.Store(true)
				if n := litter(); n != 0 {
					t.Errorf("%d collections", n)
				}
			})
			if !stood.Load() {
				t.Error("the guest does not stand still")
			}
			if p, l := debug.SetGCPercent(100), debug.SetMemoryLimit(-1); p != 100 || l != limit {
				t.Errorf("GOGC is %d and GOMEMLIMIT %d afterwards", p, l)
			}
		})
	}
}

// What is held is bounded, and by the last holder.
func TestTheCollectorIsHeldByWhoeverNeedsItAndNotForEver(t *testing.T) {
	percent := debug.SetGCPercent(100)
	defer debug.SetGCPercent(percent)
	first, second := holdCollector(), holdCollector()
	first()
	first()
	if n := litter(); n != 0 {
		t.Errorf("%d collections while one holds it", n)
	}
	const most = 16 * collectorSlack // one that has begun takes its time
	for bytes := 0; litter() == 0; bytes += 256 * 64 << 10 {
		if bytes > most {
			t.Fatalf("none in %d bytes", bytes)
		}
	}
	second()
	if p := debug.SetGCPercent(100); p != 100 {
		t.Errorf("GOGC is %d afterwards", p)
	}
}
