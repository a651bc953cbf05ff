package migration

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Throttler is what a SourceMachine is besides if precopy may slow its guest
// down.
type Throttler interface {
	// Throttle keeps the vCPUs from running for percent, 0 to 99, of the time
	// from now on. 0 undoes it, whatever the guest does just then. It does
	// not delay Pause.
	Throttle(percent int)
}

// How much of the time the guest is kept from running. The first step is one
// that most guests hardly feel. Steps of 10 find the least that does it, within
// 10. At 99 the guest still answers, and writes a hundredth of what it wrote:
// what does not converge then is stuck for another reason.
const (
	throttleFirst = 20
	throttleStep  = 10
	throttleMost  = 99
)

// winning is the share of what a pass sent that may be to send again after it:
// with more, precopy would need many passes even if it gets there.
const winning = 0.5

// throttle slows the guest down, step by step, while passes do not win. A nil
// *throttle does not. Its methods but percent are for the goroutine that runs
// the migration.
type throttle struct {
	machine Throttler
	events  *EventLog
	now     atomic.Int32 // percent
	most    int
	since   time.Time // when it began
	took    time.Duration
}

// newThrottle returns nil if opt does not ask for one.
func newThrottle(m SourceMachine, opt *Options) (*throttle, error) {
	if !opt.AutoConverge {
		return nil, nil
	}
	if opt.Mode != ModePrecopy {
		return nil, &RefusedError{fmt.Sprintf("auto-converge slows the guest down until precopy can end; mode %s ends without that: leave it out, or use mode %s", opt.Mode, ModePrecopy)}
	}
	machine, ok := m.(Throttler)
	if !ok {
		return nil, &RefusedError{"auto-converge needs a machine whose vCPUs can be slowed down, which this one is not; leave it out"}
	}
	return &throttle{machine: machine, events: opt.Events}, nil
}

// after is told of each pass that is followed by another, and tells whether it
// slowed the guest down for it.
func (t *throttle) after(p pass) bool {
	if t == nil || float64(p.dirty) <= winning*float64(p.sent) {
		return false
	}
	percent := t.percent()
	if percent == throttleMost {
		return false
	}
	if percent == 0 {
		t.since = time.Now()
		percent = throttleFirst
	} else {
		percent = min(percent+throttleStep, throttleMost)
	}
	t.most = max(t.most, percent)
	t.now.Store(int32(percent))
	t.machine.Throttle(percent)
	t.events.add(EventThrottle, throttleEvent{percent})
	return true
}

// end gives the guest all of its time back.
func (t *throttle) end() {
	if t.percent() == 0 {
		return
	}
	t.machine.Throttle(0)
	t.now.Store(0)
	t.took += time.Since(t.since)
	t.events.add(EventThrottle, throttleEvent{0})
}

// percent is how much of the time the guest is kept from running now.
func (t *throttle) percent() int {
	if t == nil {
		return 0
	}
	return int(t.now.Load())
}

// report is for the time after end.
func (t *throttle) report() ThrottleReport {
	if t == nil {
		return ThrottleReport{}
	}
	return ThrottleReport{MaxPercent: t.most, TookNS: int64(t.took)}
}
