package migration

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrNotPaused is what Resume returns when there is nothing to take up.
var ErrNotPaused = errors.New("the migration is not paused")

// errRedirected ends attempts at an address that is not wanted any more.
var errRedirected = errors.New("another address was given")

// route is the way back to a destination whose connections broke. A person may
// change it while the source tries.
type route struct {
	mu     sync.Mutex
	dest   Address
	within time.Duration // is how long to try, from the break or the change on
	urged  bool          // a person wants it tried at once; no attempt has begun since
	// again ends the attempts under way; nil while there are none.
	again context.CancelCauseFunc
	// held: Run, or Resume, has left the migration paused.
	held bool
}

func (r *route) address() Address {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dest
}

// attempts are those by one route. ctx ends when that is changed.
type attempts struct {
	ctx    context.Context
	dest   Address
	within time.Duration
	wait   time.Duration // before the first
}

// begin tells how to go about attempts. end has to follow.
func (r *route) begin(ctx context.Context) attempts {
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx, r.again = context.WithCancelCause(ctx)
	// Without a wait connections that are made, and break at once, would be
	// made again and again.
	a := attempts{ctx, r.dest, r.within, firstBackoff}
	if r.urged {
		a.wait = 0
	}
	r.urged = false
	return a
}

// end ends what begin began, and tells whether the route has changed since:
// then another begin has to follow.
func (r *route) end() (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.again(nil)
	if !r.urged {
		r.again = nil
	}
	return r.urged
}

// set changes the route. A zero address stands for the one there is. r.mu is
// held.
func (r *route) set(dest Address, within time.Duration) {
	if dest != (Address{}) {
		r.dest = dest
	}
	r.within, r.urged = within, true
}

// hold says that nobody tries to connect again any more.
func (r *route) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = true
}

// take undoes hold, and changes the route; it reports false if it is not held.
func (r *route) take(dest Address, within time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.held {
		return false
	}
	r.held = false
	r.set(dest, within)
	return true
}

// Destination is the address that was dialled last, or will be next.
func (s *Source) Destination() Address { return s.route.address() }

// CheckDestination refuses an address at which no destination of this migration
// can be: TLS goes with tcp alone, and connections that were passed are to be had
// once. A zero address stands for the one there is.
func (s *Source) CheckDestination(dest Address) error {
	switch {
	case dest == (Address{}) && s.Destination().Network == networkFD:
		return errPassed
	case s.opt.TLS == nil:
		return nil
	}
	return dest.CheckSourceTLS()
}

// Redirect changes, while the connections are broken and Run or Resume dials
// again, the address that is dialled and for how long, counted from now; that
// begins at once. A zero address stands for the one there is. It reports false,
// and nothing changes, when no attempts to connect again are under way or
// CheckDestination refuses the address.
func (s *Source) Redirect(dest Address, within time.Duration) bool {
	if s.CheckDestination(dest) != nil {
		return false
	}
	r := &s.route
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.again == nil {
		return false
	}
	r.set(dest, within)
	r.again(errRedirected)
	return true
}

// Resume takes up a migration that Run or Resume has left with a
// [*PausedError]: it dials this address, where the same destination has to be,
// for as long as within says, and again whenever the connections break; no
// longer than ctx lasts. A zero address stands for the one before. What it
// returns is as Run's: the report is about the whole of the migration.
// [ErrNotPaused] means that there is nothing to take up.
func (s *Source) Resume(ctx context.Context, dest Address, within time.Duration) (*Report, error) {
	if err := s.CheckDestination(dest); err != nil {
		return nil, err
	}
	if !s.route.take(dest, within) {
		return nil, fmt.Errorf("%w: it is %s", ErrNotPaused, s.Phase())
	}
	// Whoever was given the report may still be reading it.
	rep := *s.report
	rep.Error = ""
	s.report = &rep
	s.sums.start()
	s.samples = newSampler(s.ram, s.opt.Events)
	return s.finish(&rep, s.postcopy(ctx, nil))
}
