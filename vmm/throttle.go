package vmm

import "time"

// A throttled vCPU runs for one slice, then stands still for as long as it
// takes to make the share of time right. The slice is throttleSlice, so that a
// guest that is slowed down a little stands still only briefly; where that
// would make the two longer than throttlePeriod, both shrink: a guest never
// stands still for longer.
const (
	throttleSlice  = 10 * time.Millisecond
	throttlePeriod = 100 * time.Millisecond
)

// turns splits time for vCPUs that are not to run for percent of it, 1 to 99.
func turns(percent int) (run, still time.Duration) {
	period := min(throttleSlice*100/time.Duration(100-percent), throttlePeriod)
	still = period * time.Duration(percent) / 100
	return period - still, still
}

// Throttle keeps the vCPUs out of KVM_RUN for percent, 0 to 99, of the time
// from now on. 0 undoes it.
func (vm *VM) Throttle(percent int) { vm.cpus.throttle(percent) }

// throttle has the threads wait in hold for percent of the time. They wait
// there as for a pause, so that one of them that is asked to pause, to run on
// or to leave meanwhile does so at once.
func (s *cpuSet) throttle(percent int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.percent = percent
	if percent == 0 {
		s.still = false
		s.cond.Broadcast()
	}
	switch {
	case s.throttled != nil:
		select {
		case s.throttled <- struct{}{}:
		default: // it has news to look at already
		}
	case percent > 0 && s.wish != wishStop:
		s.throttled = make(chan struct{}, 1)
		go s.alternate(s.throttled)
	}
}

// alternate is the goroutine that has the threads stand still and run by
// turns, until percent is 0. changed says that it is another.
func (s *cpuSet) alternate(changed <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for still := true; ; still = !still {
		s.mu.Lock()
		if s.percent == 0 || s.wish == wishStop {
			s.still, s.throttled = false, nil
			s.mu.Unlock()
			return
		}
		run, stand := turns(s.percent)
		s.still = still
		if still {
			s.kick()
		} else {
			s.cond.Broadcast()
		}
		s.mu.Unlock()
		if still {
			timer.Reset(stand)
		} else {
			timer.Reset(run)
		}
		select {
		case <-timer.C:
		case <-changed:
		}
	}
}
