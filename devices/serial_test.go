package devices

import (
	"context"
	"errors"
	"io"
	"testing"
)

// TestSerialFullRingHoldsTheGuestUp: a writer that takes nothing makes the
// transmitter look busy and never blocks; what is forced in is counted; once
// the writer takes again, the interrupt comes.
func TestSerialFullRingHoldsTheGuestUp(t *testing.T) {
	irq := newIRQLatch()
	g := newGate()
	s := newSerial(t, irq, g)
	outb(s, uartIER, ierTHRE)
	outb(s, uartData, 'a')
	<-g.entered // that one is with the writer now
	n := 0
	for in(s, uartLSR)&lsrTHRE != 0 {
		outb(s, uartData, 'b')
		n++
	}
	if want := uartOutputSize - uartFIFOSize + 1; n != want {
		t.Errorf("%d bytes until the transmitter is busy, want %d", n, want)
	}
	wantByte(t, "LSR", in(s, uartLSR), 0)
	in(s, uartIIR)
	irq.taken()
	wantByte(t, "IIR", in(s, uartIIR), iirNone)
	outb(s, uartIER, 0)
	outb(s, uartIER, ierTHRE)
	if irq.taken() {
		t.Error("a busy transmitter interrupts")
	}
	for range uartFIFOSize - 1 {
		outb(s, uartData, 'c')
	}
	if d := s.Dropped(); d != 0 {
		t.Errorf("%d bytes dropped while there was room", d)
	}
	for range 5 {
		outb(s, uartData, 'd')
	}
	if d := s.Dropped(); d != 5 {
		t.Errorf("%d bytes dropped, want 5", d)
	}

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := s.Flush(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Flush gave %v, want context.Canceled", err)
	}
	wantError(t, err, "serial0", "65537 bytes not written")

	close(g.open)
	irq.wait(t)
	wantByte(t, "IIR", in(s, uartIIR), iirTHRE)
	wantByte(t, "LSR", in(s, uartLSR), lsrTHRE|lsrTEMT)
	if err := s.Flush(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if got := len(g.bytes()); got != uartOutputSize+1 {
		t.Errorf("%d bytes written, want %d", got, uartOutputSize+1)
	}
}

type failingWriter struct {
	n   int
	err error
}

func (w failingWriter) Write(p []byte) (int, error) { return w.n, w.err }

func TestSerialWriterFails(t *testing.T) {
	for _, c := range []struct {
		w    failingWriter
		want error
		drop uint64
	}{
		{failingWriter{0, io.ErrClosedPipe}, io.ErrClosedPipe, 1},
		{failingWriter{0, nil}, io.ErrShortWrite, 1},
		{failingWriter{-1, io.ErrClosedPipe}, io.ErrClosedPipe, 1},
	} {
		s := NewSerial(newIRQLatch(), c.w)
		outb(s, uartData, 'x')
		if err := s.Flush(deadline(t)); !errors.Is(err, c.want) {
			t.Errorf("Flush gave %v, want %v", err, c.want)
		}
		wantByte(t, "LSR", in(s, uartLSR), lsrTHRE|lsrTEMT)
		if d := s.Dropped(); d != c.drop {
			t.Errorf("%d bytes dropped, want %d", d, c.drop)
		}
		if err := s.Close(); !errors.Is(err, c.want) {
			t.Errorf("Close gave %v, want %v", err, c.want)
		}
	}
}

// TestSerialClosedDoesNotHoldTheGuestUp: the vCPUs may run on for a moment.
func TestSerialClosedDoesNotHoldTheGuestUp(t *testing.T) {
	g := newGate()
	defer close(g.open)
	s := NewSerial(newIRQLatch(), g)
	for in(s, uartLSR)&lsrTHRE != 0 {
		outb(s, uartData, 'x')
	}
	waiting := make(chan error)
	go func() { waiting <- s.Flush(deadline(t)) }()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-waiting
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	outb(s, uartData, 'x')
	wantByte(t, "LSR", in(s, uartLSR), lsrTHRE|lsrTEMT)
	if s.Input([]byte("x")) != 0 {
		t.Error("a closed port took input")
	}
}

func TestSerialReceiveFIFO(t *testing.T) {
	for fcr, level := range map[byte]int{0x01: 1, 0x41: 4, 0x81: 8, 0xC1: 14} {
		irq := newIRQLatch()
		s := newSerial(t, irq, newGate())
		outb(s, uartIIR, fcr)
		outb(s, uartIER, ierData)
		if n := s.Input(make([]byte, level)); n != level {
			t.Fatalf("FCR %#x: took %d bytes, want %d", fcr, n, level)
		}
		irq.wait(t)
		wantByte(t, "IIR at the trigger level", in(s, uartIIR), iirFIFO|iirData)
		if n := s.Input(make([]byte, 20)); n != uartFIFOSize-level {
			t.Errorf("FCR %#x: took %d bytes more, want %d", fcr, n, uartFIFOSize-level)
		}
		irq.taken()
		for i := range uartFIFOSize - level + 1 {
			if in(s, uartIIR) != iirFIFO|iirData {
				t.Errorf("FCR %#x: no data interrupt after %d reads", fcr, i)
			}
			in(s, uartData)
		}
		if level == 1 {
			wantByte(t, "IIR when empty", in(s, uartIIR), iirFIFO|iirNone)
			continue
		}
		// Now below the level: silent at first, then announced as resting.
		irq.wait(t)
		wantByte(t, "IIR after the timeout", in(s, uartIIR), iirFIFO|iirTimeout)
	}
}

// TestSerialReceiveBelowTrigger: a single key, with a trigger level of 14.
func TestSerialReceiveBelowTrigger(t *testing.T) {
	irq := newIRQLatch()
	s := newSerial(t, irq, newGate())
	outb(s, uartIIR, 0xC1)
	outb(s, uartIER, ierData)
	s.Input([]byte("k"))
	if !irq.taken() {
		t.Error("no interrupt for a key")
	}
	wantByte(t, "IIR", in(s, uartIIR), iirFIFO|iirTimeout)
	wantByte(t, "LSR", in(s, uartLSR), lsrData|lsrTHRE|lsrTEMT)
	wantByte(t, "RBR", in(s, uartData), 'k')
	wantByte(t, "IIR", in(s, uartIIR), iirFIFO|iirNone)
	wantByte(t, "RBR when empty", in(s, uartData), 0)
}

// TestSerialRaisedTriggerDoesNotHideData: data that the level announced is
// announced again, as resting, when the level is put above it.
func TestSerialRaisedTriggerDoesNotHideData(t *testing.T) {
	irq := newIRQLatch()
	s := newSerial(t, irq, newGate())
	outb(s, uartIIR, 0x01)
	outb(s, uartIER, ierData)
	s.Input([]byte("abc"))
	irq.wait(t)
	outb(s, uartIIR, 0xC1)
	irq.wait(t)
	wantByte(t, "IIR", in(s, uartIIR), iirFIFO|iirTimeout)
}

func TestSerialWithoutFIFO(t *testing.T) {
	irq := newIRQLatch()
	s := newSerial(t, irq, newGate())
	outb(s, uartIER, ierData)
	if n := s.Input([]byte("ab")); n != 1 {
		t.Fatalf("took %d bytes, want 1", n)
	}
	irq.wait(t)
	wantByte(t, "IIR", in(s, uartIIR), iirData)
	select {
	case <-s.InputReady():
		t.Error("asks for input without room")
	default:
	}
	wantByte(t, "RBR", in(s, uartData), 'a')
	<-s.InputReady()
	if n := s.Input([]byte("b")); n != 1 {
		t.Fatalf("took %d bytes, want 1", n)
	}
	irq.wait(t) // one edge a byte: this guest takes one byte an interrupt
	outb(s, uartIIR, 0x01)
	wantByte(t, "LSR: switching the FIFO on empties it", in(s, uartLSR)&lsrData, 0)
}

func TestSerialLoopback(t *testing.T) {
	irq := newIRQLatch()
	g := newGate()
	s := newSerial(t, irq, g)
	outb(s, uartMCR, mcrLoop)
	in(s, uartMSR)
	if s.Input([]byte("x")) != 0 || s.Break() {
		t.Error("took input in loopback")
	}
	outb(s, uartData, 'a')
	outb(s, uartData, 'b')
	wantByte(t, "LSR", in(s, uartLSR), lsrData|lsrOverrun|lsrTHRE|lsrTEMT)
	wantByte(t, "RBR after an overrun", in(s, uartData), 'b')

	outb(s, uartIIR, 0x01)
	outb(s, uartIER, ierLine)
	for i := range uartFIFOSize {
		outb(s, uartData, byte(i))
	}
	outb(s, uartData, 0xFF)
	irq.wait(t)
	wantByte(t, "IIR", in(s, uartIIR), iirFIFO|iirLine)
	wantByte(t, "LSR", in(s, uartLSR), lsrData|lsrOverrun|lsrTHRE|lsrTEMT)
	wantByte(t, "IIR when LSR was read", in(s, uartIIR), iirFIFO|iirNone)
	for i := range uartFIFOSize {
		wantByte(t, "FIFO after an overrun", in(s, uartData), byte(i))
	}
	outb(s, uartLCR, lcrBreak)
	irq.wait(t)
	wantByte(t, "LSR", in(s, uartLSR), lsrData|lsrBreak|lsrTHRE|lsrTEMT|lsrFIFOError)
	in(s, uartData)

	outb(s, uartIER, ierModem)
	outb(s, uartMCR, mcrLoop|mcrOut1|mcrDTR)
	irq.wait(t)
	wantByte(t, "IIR", in(s, uartIIR), iirFIFO|iirModem)
	wantByte(t, "MSR", in(s, uartMSR), msrRI|msrDSR|msrDeltaDSR)
	wantByte(t, "IIR when MSR was read", in(s, uartIIR), iirFIFO|iirNone)
	outb(s, uartMCR, 0)
	<-s.InputReady()
	wantByte(t, "MSR", in(s, uartMSR), uartModemAttached|msrRingEnd|msrDeltaCTS|msrDeltaDCD)
	if len(g.bytes()) != 0 || s.Dropped() != 0 {
		t.Error("loopback let bytes out")
	}
}

// TestSerialBreak: the break's mark shows when its byte is next, not before.
func TestSerialBreak(t *testing.T) {
	irq := newIRQLatch()
	s := newSerial(t, irq, newGate())
	outb(s, uartIIR, 0x01)
	outb(s, uartIER, ierLine)
	s.Input([]byte("a"))
	if !s.Break() {
		t.Fatal("the break was not taken")
	}
	if irq.taken() {
		t.Error("the break interrupts ahead of the byte before it")
	}
	wantByte(t, "LSR", in(s, uartLSR), lsrData|lsrTHRE|lsrTEMT|lsrFIFOError)
	wantByte(t, "RBR", in(s, uartData), 'a')
	irq.wait(t)
	wantByte(t, "IIR", in(s, uartIIR), iirFIFO|iirLine)
	wantByte(t, "LSR", in(s, uartLSR), lsrData|lsrBreak|lsrTHRE|lsrTEMT|lsrFIFOError)
	wantByte(t, "LSR read again", in(s, uartLSR), lsrData|lsrTHRE|lsrTEMT)
	wantByte(t, "RBR", in(s, uartData), 0)
	s.Input([]byte("0123456789abcdef"))
	if s.Break() {
		t.Error("a full FIFO took a break")
	}
}

// TestSerialInterruptPriority gives every cause at once and takes them away.
func TestSerialInterruptPriority(t *testing.T) {
	s := newSerial(t, newIRQLatch(), newGate())
	outb(s, uartIIR, 0x01)
	outb(s, uartIER, ierMask)
	outb(s, uartMCR, mcrLoop) // drops the modem's lines
	outb(s, uartMCR, 0)
	s.Break()
	for _, step := range []struct {
		iir byte
		ack uint64
	}{{iirLine, uartLSR}, {iirData, uartData}, {iirTHRE, uartIIR}, {iirModem, uartMSR}} {
		if step.iir != iirTHRE { // reading IIR is what acknowledges that one
			wantByte(t, "IIR", in(s, uartIIR), iirFIFO|step.iir)
			in(s, step.ack)
			continue
		}
		wantByte(t, "IIR", in(s, uartIIR), iirFIFO|step.iir)
	}
	wantByte(t, "IIR", in(s, uartIIR), iirFIFO|iirNone)
}

// TestSerialWideAccess: an access of several bytes reaches that many registers.
func TestSerialWideAccess(t *testing.T) {
	s := newSerial(t, newIRQLatch(), newGate())
	s.Write(uartLCR, []byte{0x80, 0x03})
	s.Write(0, []byte{0x34, 0x12})
	var p [8]byte
	s.Read(0, p[:])
	want := [8]byte{0x34, 0x12, iirNone, 0x80, 0x03, lsrTHRE | lsrTEMT, 0xB0, 0}
	if p != want {
		t.Errorf("registers are %x, want %x", p, want)
	}
	wantByte(t, "beyond the last register", in(s, 8), 0xFF)
	outb(s, 9, 0)
}

func TestSerialInputAllEndsWithContext(t *testing.T) {
	s := newSerial(t, newIRQLatch(), newGate())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n, err := s.InputAll(ctx, []byte("abc"))
	if n != 1 || !errors.Is(err, context.Canceled) {
		t.Errorf("InputAll gave %d, %v, want 1, context.Canceled", n, err)
	}
}

// FuzzSerialPort: whatever is done to the registers, nothing panics or hangs,
// what is saved can be loaded, and a cause of interrupt is never silent.
func FuzzSerialPort(f *testing.F) {
	f.Add([]byte{0x82, 0x01, 0x81, 0x02, 0x80, 0x41, 0x00, 0x00, 0x02, 0x00})
	f.Add([]byte{0x84, 0x10, 0x80, 0x55, 0x00, 0x00, 0x40, 0x07, 0x20, 0x00})
	f.Fuzz(func(t *testing.T, ops []byte) {
		irq := newIRQLatch()
		s := NewSerial(irq, io.Discard)
		defer s.Close()
		for ; len(ops) >= 2; ops = ops[2:] {
			off, v := uint64(ops[0]&7), ops[1]
			before := s.causes()
			switch ops[0] >> 5 {
			case 0, 1:
				in(s, off)
			case 2:
				s.Input(make([]byte, v&0x1F))
			case 3:
				s.Break()
			default:
				outb(s, off, v)
			}
			if s.causes()&^before != 0 {
				irq.wait(t) // waits, since the timeout's goroutine may be about to
			}
			irq.taken()
		}
		state, err := s.Save()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Load(serialVersion, state); err != nil {
			t.Fatalf("what was saved is refused: %v", err)
		}
	})
}

func (s *Serial) causes() byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.regs.causes()
}

type irqCount int

func (c *irqCount) Trigger() error { *c++; return nil }

// TestSerialPulsesOncePerBurst: a masked interrupt controller loses edges, so
// each burst gives one even if the last was never looked at; each byte of it
// would be a system call too many.
func TestSerialPulsesOncePerBurst(t *testing.T) {
	var n irqCount
	s := newSerial(t, &n, io.Discard)
	outb(s, uartIER, ierTHRE)
	for range 3 {
		before := n
		in(s, uartLSR)
		for range uartFIFOSize {
			outb(s, uartData, 'x')
		}
		if got := n - before; got != 1 {
			t.Errorf("%d pulses for a burst, want 1", got)
		}
	}
}
