package vmm

import (
	"sync"
	"time"
)

// memoryUse counts who uses guest memory besides vCPUs and devices: a migration in or
// out, a snapshot. It is not unmapped under them.
type memoryUse struct {
	mu    sync.Mutex
	users int
	over  bool
	none  chan struct{} // closed when over and there are none; made by end
}

// begin counts one more, unless it is over: then there is no memory to be used.
func (u *memoryUse) begin() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.over {
		return errEnded
	}
	u.users++
	return nil
}

// done counts one less.
func (u *memoryUse) done() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.users--
	if u.over && u.users == 0 {
		close(u.none)
	}
}

// end lets nobody begin any more, and waits for those that have, but no longer than
// patience. It reports whether there are none.
func (u *memoryUse) end(patience time.Duration) bool {
	u.mu.Lock()
	if !u.over {
		u.over, u.none = true, make(chan struct{})
		if u.users == 0 {
			close(u.none)
		}
	}
	none := u.none
	u.mu.Unlock()
	select {
	case <-none:
		return true
	case <-time.After(patience):
		return false
	}
}
