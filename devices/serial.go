package devices

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	uartOutputSize = 64 << 10
	uartRxTimeout  = time.Millisecond // stands for four character times
)

// Serial is a 16550A UART: eight byte-wide registers, FIFOs of 16 bytes.
//
// The line has no speed. What the guest sends goes at once to a ring of 64
// KiB, which one goroutine drains into the writer; while the ring is full the
// guest sees a transmitter that isn't empty, and what it sends all the same is
// dropped and counted. What the host has for the guest comes through
// [Serial.Input], which takes no more than the receive FIFO holds.
//
// MCR's OUT2 does not gate the interrupt, as it does on a PC: a guest that
// enables an interrupt gets it.
type Serial struct {
	out   *outputRing
	irq   edge
	ready chan struct{} // room for input; capacity 1
	timer *time.Timer   // receive timeout

	mu     sync.Mutex
	regs   uartState // guarded by mu, as all below
	paused bool      // Input takes nothing
	hungry bool      // Input took less than it was given
	burst  bool      // the last access wrote THR
	// While armed, the receive timeout is under way; touched says that the
	// FIFO was read since, so that it has to start anew.
	armed, touched bool
}

// NewSerial returns the port and starts the goroutine that writes to out. irq
// gets a pulse for every new cause of interrupt. Close ends it.
func NewSerial(irq Interrupt, out io.Writer) *Serial {
	s := &Serial{irq: edge{irq: irq}, ready: make(chan struct{}, 1)}
	s.regs = uartState{dll: uartDefaultDiv}
	s.timer = time.AfterFunc(time.Hour, s.receiveTimeout)
	s.timer.Stop()
	s.out = newOutputRing(out, uartOutputSize, s.transmitterReady)
	go s.out.drain()
	return s
}

// Read reads registers, one per byte: an access wider than a byte reaches the
// registers one after the other, as it does on an ISA bus.
func (s *Serial) Read(off uint64, p []byte) {
	s.mu.Lock()
	before := s.regs.causes()
	for i := range p {
		p[i] = s.readReg(off + uint64(i))
	}
	fire := s.regs.causes()&^before != 0
	s.mu.Unlock()
	if fire {
		s.irq.pulse()
	}
}

// Write writes registers, one per byte.
func (s *Serial) Write(off uint64, p []byte) {
	fire := false
	s.mu.Lock()
	for i, b := range p {
		before := s.regs.causes()
		again := s.writeReg(off+uint64(i), b)
		fire = fire || again || s.regs.causes()&^before != 0
	}
	s.mu.Unlock()
	if fire {
		s.irq.pulse()
	}
}

func (s *Serial) readReg(off uint64) byte {
	s.burst = false
	r := &s.regs
	switch off {
	case uartData:
		if r.lcr&lcrDLAB != 0 {
			return r.dll
		}
		b := r.pop()
		s.received()
		return b
	case uartIER:
		if r.lcr&lcrDLAB != 0 {
			return r.dlm
		}
		return r.ier
	case uartIIR:
		v := r.iir()
		if v&0x0F == iirTHRE {
			r.thri = false
		}
		return v
	case uartLCR:
		return r.lcr
	case uartMCR:
		return r.mcr
	case uartLSR:
		v := r.lsr()
		r.lineErrs = 0
		return v
	case uartMSR:
		v := r.modemLines() | r.modemDeltas
		r.modemDeltas = 0
		return v
	case uartSCR:
		return r.scr
	}
	return 0xFF
}

// writeReg reports whether the interrupt has to be pulsed although its causes
// may be the same as before.
func (s *Serial) writeReg(off uint64, b byte) (again bool) {
	burst := s.burst
	s.burst = false
	r := &s.regs
	switch off {
	case uartData:
		if r.lcr&lcrDLAB != 0 {
			r.dll = b
			return false
		}
		s.transmit(b)
		// A byte gone is a new cause even if the guest hasn't seen the
		// last one; but one pulse is enough for the up to 16 bytes that a
		// driver writes in a row.
		s.burst = true
		return !burst && r.thri && r.ier&ierTHRE != 0
	case uartIER:
		if r.lcr&lcrDLAB != 0 {
			r.dlm = b
			return false
		}
		r.setIER(b)
	case uartIIR:
		if r.setFCR(b) {
			s.received()
		}
		s.armTimeout()
	case uartLCR:
		started := b&^r.lcr&lcrBreak != 0
		r.lcr = b
		if started && r.mcr&mcrLoop != 0 {
			r.receive(0, lsrBreak)
		}
	case uartMCR:
		loop := r.mcr & mcrLoop
		r.setMCR(b)
		if loop != 0 && r.mcr&mcrLoop == 0 {
			s.wantInput()
		}
	case uartSCR:
		r.scr = b
	}
	return false
}

// transmit sends a byte: to the host, or in loopback mode to our own receiver.
func (s *Serial) transmit(b byte) {
	r := &s.regs
	r.thri = false
	if r.mcr&mcrLoop != 0 {
		r.receive(b, 0)
		r.thri = !r.stalled
		return
	}
	r.stalled = !s.out.put(b)
	r.thri = !r.stalled
}

// transmitterReady is called by the ring's goroutine when it has room.
func (s *Serial) transmitterReady() {
	s.mu.Lock()
	fire := false
	// Looked at again: a guest that doesn't wait may have filled it anew.
	if s.regs.stalled && s.out.room() {
		s.regs.stalled = false
		s.regs.thri = true
		fire = s.regs.ier&ierTHRE != 0
	}
	s.mu.Unlock()
	if fire {
		s.irq.pulse()
	}
}

// Flush waits until everything the guest has sent is written. The error is the
// writer's first, or ctx's with what was left. A migration's source calls it
// before it gives up ownership: the ring is no part of the device's state.
func (s *Serial) Flush(ctx context.Context) error {
	if err := s.out.flush(ctx); err != nil {
		return fmt.Errorf("%s: flush output: %w", serialID, err)
	}
	return nil
}

// Dropped is the number of bytes the guest has sent that never reached the
// writer: forced into a full ring, or refused by the writer.
func (s *Serial) Dropped() uint64 { return s.out.dropped.Load() }

// Close stops the output; what has not been written is dropped and counted. It
// does not wait for a Write of the writer that is under way. The error is the
// writer's first.
func (s *Serial) Close() error {
	s.mu.Lock()
	s.paused = true
	s.mu.Unlock()
	s.timer.Stop()
	if err := s.out.close(); err != nil {
		return fmt.Errorf("%s: write output: %w", serialID, err)
	}
	return nil
}
