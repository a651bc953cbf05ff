package vmm

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// errCPUsStopped: the vCPUs have been told to stop for good.
var errCPUsStopped = errors.New("the VM has ended")

// wish is what the vCPU threads are to do.
type wish uint8

const (
	wishPause wish = iota // stay out of KVM_RUN, until another wish
	wishRun               // in the time that throttle leaves
	wishStop              // leave for good
)

// A cpuSet is the vCPUs of a VM and what they are wished to do: the only
// place where a vCPU thread waits for anything but KVM.
//
// How a kick cannot be lost. A vCPU thread looks at the wish only in hold,
// under mu, and from there goes to KVM_RUN. Between the two, and in KVM_RUN,
// a new wish has to reach it. Whoever makes a wish, under mu, sets the
// vCPU's immediate_exit and then sends its thread SIGURG. The thread is
//
//   - in guest mode or halted in KVM_RUN: the signal ends that, with EINTR;
//   - in KVM_RUN before the check of immediate_exit: it sees it set, EINTR;
//   - in KVM_RUN after that check, still before guest mode: the signal is
//     pending then, which KVM looks at last, with interrupts off: EINTR;
//   - before KVM_RUN, or between two of them to handle an exit: the signal
//     is lost (the Go runtime takes it for one of its own, and ignores it),
//     but immediate_exit is set still, and the next KVM_RUN gives EINTR.
//
// EINTR leads to hold, and only hold clears immediate_exit, under mu, having
// seen the wish. The flag carries the wish; the signal only hurries it.
//
// It is also why a pause leaves no half-done instruction behind: after an
// I/O or MMIO exit it is the next KVM_RUN that completes the instruction,
// before it looks at immediate_exit. As EINTR is the only way to hold, a
// vCPU that waits there has completed whatever it was at.
type cpuSet struct {
	mu   sync.Mutex
	cond sync.Cond // the wish has changed
	// wish, held, live and quiet are guarded by mu.
	wish  wish
	held  int           // how many wait in hold
	live  int           // how many threads there are
	quiet chan struct{} // closed when held == live; nil if nobody waits for it
	// Of throttle, guarded by mu too: the share of time not to run, whether
	// this is part of it, and what wakes alternate, nil without that.
	percent   int
	still     bool
	throttled chan struct{}

	cpus []*vcpu
	done sync.WaitGroup
}

func newCPUSet(cpus []*vcpu) *cpuSet {
	s := &cpuSet{cpus: cpus}
	s.cond.L = &s.mu
	return s
}

// start makes the threads, which then do as w says, and returns when each is
// there.
func (s *cpuSet) start(w wish) error {
	s.mu.Lock()
	if s.wish == wishStop {
		s.mu.Unlock()
		return errCPUsStopped
	}
	s.wish, s.live = w, len(s.cpus)
	s.mu.Unlock()
	var ready sync.WaitGroup
	ready.Add(len(s.cpus))
	s.done.Add(len(s.cpus))
	for _, c := range s.cpus {
		go func() {
			defer s.done.Done()
			c.run(ready.Done)
			s.leave()
		}()
	}
	ready.Wait()
	return nil
}

// hold is where a vCPU thread comes before its first KVM_RUN and after each
// EINTR. It returns true to run on, false to leave.
func (s *cpuSet) hold(c *vcpu) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held++
	s.checkQuiet()
	for s.wish == wishPause || (s.wish == wishRun && s.still) {
		s.cond.Wait()
	}
	s.held--
	if s.wish == wishStop {
		return false
	}
	c.kvm.SetImmediateExit(false)
	return true
}

// leave takes a thread that ends out of the count of those to wait for.
func (s *cpuSet) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live--
	s.checkQuiet()
}

// checkQuiet tells the one who waits in pause. mu is held.
func (s *cpuSet) checkQuiet() {
	if s.held == s.live && s.quiet != nil {
		close(s.quiet)
		s.quiet = nil
	}
}

// kick gets every vCPU to hold. mu is held.
func (s *cpuSet) kick() {
	for _, c := range s.cpus {
		c.kvm.SetImmediateExit(true)
		if tid := c.tid.Load(); tid != 0 {
			// ESRCH: the thread has ended, and so has its need of a signal.
			_ = unix.Tgkill(unix.Getpid(), int(tid), unix.SIGURG)
		}
	}
}

// pause returns when every vCPU waits in hold. If ctx ends before, they run
// again. Preconditions: one caller at a time.
func (s *cpuSet) pause(ctx context.Context) error {
	s.mu.Lock()
	if s.wish == wishStop {
		s.mu.Unlock()
		return errCPUsStopped
	}
	s.wish = wishPause
	s.kick()
	quiet := make(chan struct{})
	s.quiet = quiet
	s.checkQuiet()
	s.mu.Unlock()

	var err error
	select {
	case <-quiet:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quiet = nil
	switch {
	case s.wish == wishStop:
		return errCPUsStopped
	case err != nil:
		s.wish = wishRun
		s.cond.Broadcast()
		return err
	}
	return nil
}

// resume lets the vCPUs run.
func (s *cpuSet) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wish == wishPause {
		s.wish = wishRun
		s.cond.Broadcast()
	}
}

// stop tells every vCPU to leave, for good. It does not wait, so that a vCPU
// thread may call it; wait does.
func (s *cpuSet) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wish = wishStop
	s.kick()
	s.cond.Broadcast()
}

// wait returns when every thread has left.
func (s *cpuSet) wait() { s.done.Wait() }

// close frees the vCPUs. Preconditions: wait has returned.
func (s *cpuSet) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, c := range s.cpus {
		errs = append(errs, c.kvm.Close())
	}
	s.cpus = nil // a late kick must not touch kvm_run
	return errors.Join(errs...)
}
