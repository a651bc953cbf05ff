package devices

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
)

func pattern(n int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 0))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}

func wantSame(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	t.Fatalf("%s: %d bytes, want %d; they differ from byte %d on", what, len(got), len(want), i)
}

// TestSerialMovesMidTransfer moves a port again and again between hosts while
// a guest sends and receives. Edges that were under way when the state was
// saved do not move; every byte arrives all the same, once and in order.
func TestSerialMovesMidTransfer(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	output, input := pattern(20000, 4), pattern(20000, 5)
	var written []byte
	var d *driver
	rest := input
	irq := newIRQLatch()
	g := newGate()
	close(g.open)
	s := newSerial(t, irq, g)
	d = newDriver(s)
	d.startup()
	d.send(output)
	for moves := 0; len(d.got) < len(input) || len(d.pending) > 0; moves++ {
		for range rng.IntN(40) {
			if rng.IntN(2) == 0 {
				n := s.Input(rest[:min(len(rest), rng.IntN(30))])
				rest = rest[n:]
			} else if irq.taken() {
				d.isr()
			}
		}
		s.Pause()
		if len(rest) > 0 && s.Input(rest) != 0 {
			t.Fatal("a paused port took input")
		}
		state, err := s.Save()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(deadline(t)); err != nil {
			t.Fatal(err)
		}
		written = append(written, g.bytes()...)

		irq, g = newIRQLatch(), newGate()
		close(g.open)
		s = newSerial(t, irq, g)
		if err := s.Load(s.Version(), state); err != nil {
			t.Fatal(err)
		}
		d.dev = s
		if moves > 100000 {
			t.Fatalf("hangs: received %d of %d, %d left to send", len(d.got), len(input), len(d.pending))
		}
	}
	if err := s.Flush(deadline(t)); err != nil {
		t.Fatal(err)
	}
	wantSame(t, "output", append(written, g.bytes()...), output)
	wantSame(t, "input", d.got, input)
}

// TestSerialMovesWhileStalled: the source's ring is full, so its guest waits
// for an interrupt; the destination's ring is empty and has to give it.
func TestSerialMovesWhileStalled(t *testing.T) {
	irq := newIRQLatch()
	g := newGate()
	defer close(g.open)
	s := newSerial(t, irq, g)
	outb(s, uartIER, ierTHRE)
	for in(s, uartLSR)&lsrTHRE != 0 {
		outb(s, uartData, 'x')
	}
	in(s, uartIIR)
	state, err := s.Save()
	if err != nil {
		t.Fatal(err)
	}
	irq2 := newIRQLatch()
	s2 := newSerial(t, irq2, newGate())
	if err := s2.Load(serialVersion, state); err != nil {
		t.Fatal(err)
	}
	if !irq2.taken() {
		t.Error("no interrupt at the destination")
	}
	wantByte(t, "IIR", in(s2, uartIIR), iirTHRE)
	wantByte(t, "LSR", in(s2, uartLSR), lsrTHRE|lsrTEMT)
	// And back into a port whose own ring is full: it stalls by itself.
	if err := s.Load(serialVersion, state); err != nil {
		t.Fatal(err)
	}
	wantByte(t, "LSR of a full port", in(s, uartLSR), 0)
}

func TestSerialRefusesState(t *testing.T) {
	s := newSerial(t, newIRQLatch(), newGate())
	outb(s, uartSCR, 0x42)
	good, err := s.Save()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at   int
		v    byte
		want string
	}{
		{0, 0x10, "IER 0x10: reserved bits 0x10"},
		{1, 0x80, "FCR 0x80: set up, but the FIFOs are off"},
		{1, 0x03, "FCR"},
		{3, 0x20, "MCR"},
		{7, 0x01, "LSR errors"},
		{8, 0x10, "MSR deltas"},
		{9, 0x04, "flags"},
		{9, 0x03, "empty and full at once"},
		{10, 2, "2 bytes received, the FIFO holds 1"},
		{10, 0xFF, "255 bytes received"},
		{11, 1, "padding"},
		{12, 1, "FIFO entry 0 is not empty"},
		{43, 1, "FIFO entry 15 is not empty"},
	} {
		b := bytes.Clone(good)
		b[c.at] = c.v
		wantError(t, s.Load(serialVersion, b), "serial0: state", c.want)
	}
	b := bytes.Clone(good)
	b[10], b[28] = 1, lsrOverrun
	wantError(t, s.Load(serialVersion, b), "FIFO errors 0")
	wantError(t, s.Load(2, good), "serial0", "version 2", "reads version 1")
	wantError(t, s.Load(serialVersion, good[1:]), "serial0", "43 bytes, want 44")
	if after, err := s.Save(); err != nil || !bytes.Equal(after, good) {
		t.Errorf("state after all refusals: %x, %v, want %x", after, err, good)
	}
}

// TestSerialSaveReportsALostInterrupt: a guest that waits for an interrupt that
// never came must not be handed on as if all were well.
func TestSerialSaveReportsALostInterrupt(t *testing.T) {
	s := newSerial(t, brokenIRQ{}, newGate())
	outb(s, uartIER, ierTHRE)
	_, err := s.Save()
	wantError(t, err, "serial0", "interrupt was lost", "eventfd gone")
}

// TestSerialManyThreads has vCPUs, the host's input and saving at it at once.
// The race detector is what judges.
func TestSerialManyThreads(t *testing.T) {
	g := newGate()
	close(g.open)
	s := newSerial(t, newIRQLatch(), g)
	var wg sync.WaitGroup
	for seed := range uint64(3) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 9))
			for range 3000 {
				if rng.IntN(2) == 0 {
					in(s, rng.Uint64N(8))
				} else {
					outb(s, rng.Uint64N(8), byte(rng.Uint32()))
				}
			}
		})
	}
	wg.Go(func() {
		for range 3000 {
			s.Input([]byte("input"))
			s.Break()
		}
	})
	wg.Go(func() {
		for range 1000 {
			s.Pause()
			b, err := s.Save()
			if err == nil {
				err = s.Load(serialVersion, b)
			}
			if err != nil {
				t.Error(err)
			}
			s.Resume()
		}
	})
	wg.Wait()
	if err := s.Flush(deadline(t)); err != nil {
		t.Error(err)
	}
}
