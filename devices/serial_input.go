package devices

import "context"

// Input offers p to the guest and returns how many bytes it took: what fits
// the receive FIFO, none while the port is paused or in loopback mode. After
// it took less than all, [Serial.InputReady] tells when to offer the rest.
func (s *Serial) Input(p []byte) int {
	s.mu.Lock()
	r := &s.regs
	n := 0
	if !s.paused && r.mcr&mcrLoop == 0 {
		n = min(len(p), r.capacity()-r.count)
	}
	for _, b := range p[:n] {
		r.receive(b, 0)
	}
	s.hungry = n < len(p)
	fire := n > 0 && r.causes()&causeData != 0
	s.mu.Unlock()
	if fire {
		s.irq.pulse()
	}
	return n
}

// InputReady gets a value when there is room after [Serial.Input] took less
// than all. It has one reader at a time; a value may come without need.
func (s *Serial) InputReady() <-chan struct{} { return s.ready }

// InputAll offers p until the guest has taken all of it, or ctx is done; it
// returns how many bytes it took. One caller at a time.
func (s *Serial) InputAll(ctx context.Context, p []byte) (int, error) {
	done := 0
	for {
		done += s.Input(p[done:])
		if done == len(p) {
			return done, nil
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return done, ctx.Err()
		}
	}
}

// Break sends the guest a break condition, Linux's magic SysRq on a serial
// console. It reports whether the guest could take it.
func (s *Serial) Break() bool {
	s.mu.Lock()
	r := &s.regs
	ok := !s.paused && r.mcr&mcrLoop == 0 && r.count < r.capacity()
	if ok {
		r.receive(0, lsrBreak)
	}
	fire := ok && r.causes()&(causeLine|causeData) != 0
	s.mu.Unlock()
	if fire {
		s.irq.pulse()
	}
	return ok
}

// Pause makes Input and Break take nothing until Resume, so that what Save
// wrote stays true and no byte goes to a guest that has left. Output that is
// under way goes on.
func (s *Serial) Pause() {
	s.mu.Lock()
	s.paused = true
	s.mu.Unlock()
}

// Resume undoes Pause.
func (s *Serial) Resume() {
	s.mu.Lock()
	s.paused = false
	s.wantInput()
	s.mu.Unlock()
}

// received follows a change of the FIFO by the guest: more input is asked for
// once it is empty and not byte by byte, and data left below the trigger level
// will be announced after the timeout.
func (s *Serial) received() {
	if s.regs.count == 0 {
		s.wantInput()
		return
	}
	s.touched = true
	s.armTimeout()
}

// wantInput tells the host's side that there is room. mu is held.
func (s *Serial) wantInput() {
	if !s.hungry {
		return
	}
	s.hungry = false
	select {
	case s.ready <- struct{}{}:
	default: // one value is enough
	}
}

// armTimeout starts the receive timeout if there is data that nothing else
// announces. mu is held.
func (s *Serial) armTimeout() {
	if s.armed || s.regs.timeout || !s.regs.resting() {
		return
	}
	s.armed, s.touched = true, false
	s.timer.Reset(uartRxTimeout)
}

func (s *Serial) receiveTimeout() {
	s.mu.Lock()
	s.armed = false
	fire := false
	if s.touched {
		s.armTimeout()
	} else if s.regs.resting() && !s.regs.timeout {
		s.regs.timeout = true
		fire = s.regs.ier&ierData != 0
	}
	s.mu.Unlock()
	if fire {
		s.irq.pulse()
	}
}
