package devices

import (
	"context"
	"sync"
	"testing"
)

// driver uses the port the way Linux's 8250 driver does: the same registers in
// the same order, sending and receiving by interrupt only.
type driver struct {
	mu      sync.Mutex // the driver's port lock
	dev     Device
	ier     byte
	pending []byte // to be sent
	sent    chan struct{}
	got     []byte
	arrived chan struct{} // got grew; capacity 1
	echo    bool
}

func newDriver(d Device) *driver {
	return &driver{dev: d, sent: make(chan struct{}, 1), arrived: make(chan struct{}, 1)}
}

// startup is what opening the tty does after the probe.
func (g *driver) startup() {
	outb(g.dev, uartIIR, 0x01)
	outb(g.dev, uartIIR, 0x07)
	outb(g.dev, uartIIR, 0)
	for _, r := range []uint64{uartLSR, uartData, uartIIR, uartMSR} {
		in(g.dev, r)
	}
	outb(g.dev, uartLCR, 0x03)
	outb(g.dev, uartMCR, 0x0B)
	outb(g.dev, uartIIR, 0x01)
	outb(g.dev, uartIIR, 0x81) // trigger level 8
	g.mu.Lock()
	defer g.mu.Unlock()
	g.setIER(ierData | ierLine)
}

func (g *driver) setIER(v byte) {
	g.ier = v
	outb(g.dev, uartIER, v)
}

// send queues p and lets the interrupt fetch it.
func (g *driver) send(p []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.queue(p)
}

func (g *driver) queue(p []byte) {
	g.pending = append(g.pending, p...)
	if len(g.pending) > 0 && g.ier&ierTHRE == 0 {
		g.setIER(g.ier | ierTHRE)
	}
}

// isr handles the interrupt until there is none.
func (g *driver) isr() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for in(g.dev, uartIIR)&iirNone == 0 {
		lsr := in(g.dev, uartLSR)
		for lsr&lsrData != 0 {
			b := in(g.dev, uartData)
			g.got = append(g.got, b)
			if g.echo {
				g.queue([]byte{b})
			}
			lsr = in(g.dev, uartLSR)
		}
		select {
		case g.arrived <- struct{}{}:
		default:
		}
		in(g.dev, uartMSR)
		if lsr&lsrTHRE != 0 && g.ier&ierTHRE != 0 {
			g.transmit()
		}
	}
}

func (g *driver) transmit() {
	n := min(uartFIFOSize, len(g.pending))
	for _, b := range g.pending[:n] {
		outb(g.dev, uartData, b)
	}
	g.pending = g.pending[n:]
	if len(g.pending) == 0 {
		g.setIER(g.ier &^ ierTHRE)
		select {
		case g.sent <- struct{}{}:
		default:
		}
	}
}

func (g *driver) received() []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.got
}

// cpu takes interrupts until ctx ends; wait for the returned function.
func (g *driver) cpu(irq irqLatch) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-irq:
				g.isr()
			case <-ctx.Done():
				return
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

func await(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-deadline(t).Done():
		t.Fatalf("hangs: %s", what)
	}
}

// TestSerialProbedAs16550A goes through the driver's autoconfiguration: what it
// concludes decides whether it uses the FIFOs.
func TestSerialProbedAs16550A(t *testing.T) {
	s := newSerial(t, newIRQLatch(), newGate())
	outb(s, uartIER, 0)
	wantByte(t, "IER with nothing enabled", in(s, uartIER), 0)
	outb(s, uartIER, 0x0F)
	wantByte(t, "IER with all enabled", in(s, uartIER), 0x0F)
	outb(s, uartIER, 0)

	outb(s, uartMCR, 0x1A) // loopback, OUT2 and RTS
	wantByte(t, "MSR in loopback", in(s, uartMSR)&0xF0, 0x90)
	outb(s, uartMCR, 0)

	outb(s, uartLCR, 0xBF) // EFR of later chips: FCR on ours
	outb(s, 2, 0)
	outb(s, uartLCR, 0)
	wantByte(t, "IIR without FIFO", in(s, uartIIR)>>6, 0)
	outb(s, uartIIR, 0x01)
	wantByte(t, "IIR with FIFO", in(s, uartIIR)>>6, 3)

	for _, lcr := range []byte{0x80, 0xBF} {
		outb(s, uartLCR, lcr)
		if in(s, 2) == 0 {
			t.Errorf("LCR %#x: register 2 reads 0: taken for a 16650", lcr)
		}
	}
	outb(s, uartLCR, 0)
	outb(s, uartIIR, 0x21)
	narrow := in(s, uartIIR) >> 5
	outb(s, uartIIR, 0x01)
	outb(s, uartLCR, 0x80)
	outb(s, uartIIR, 0x21)
	wide := in(s, uartIIR) >> 5
	outb(s, uartLCR, 0)
	if narrow != 6 || wide != 6 {
		t.Errorf("IIR >> 5 is %d and %d, want 6 and 6: taken for a 16750", narrow, wide)
	}
	outb(s, uartIER, 0x40)
	wantByte(t, "IER bit 6 (an XScale has it)", in(s, uartIER), 0)
	outb(s, uartSCR, 0xA5)
	wantByte(t, "scratch", in(s, uartSCR), 0xA5)

	outb(s, uartLCR, 0x83)
	outb(s, 0, 0x01)
	outb(s, 1, 0x02)
	wantByte(t, "DLL", in(s, 0), 1)
	wantByte(t, "DLM", in(s, 1), 2)
	outb(s, uartLCR, 0x03)
	wantByte(t, "IER behind the divisor latch", in(s, uartIER), 0)
}

// TestSerialHasNoTransmitterBugs are the two checks after which the driver
// gives up on transmitter interrupts and polls.
func TestSerialHasNoTransmitterBugs(t *testing.T) {
	irq := newIRQLatch()
	s := newSerial(t, irq, newGate())
	outb(s, uartIER, ierTHRE)
	irq.wait(t)
	wantByte(t, "IIR once enabled", in(s, uartIIR), iirTHRE)
	wantByte(t, "IIR read again", in(s, uartIIR), iirNone)
	outb(s, uartIER, 0)
	outb(s, uartIER, ierTHRE)
	irq.wait(t)
	wantByte(t, "IIR enabled again", in(s, uartIIR), iirTHRE)
	outb(s, uartIER, 0)
	outb(s, uartIER, ierTHRE)
	wantByte(t, "LSR", in(s, uartLSR), lsrTHRE|lsrTEMT)
	wantByte(t, "IIR", in(s, uartIIR), iirTHRE)
}

// TestSerialCarriesEverything sends and receives by interrupt at once, with
// more than the ring holds: nothing is lost, reordered or left waiting.
func TestSerialCarriesEverything(t *testing.T) {
	irq := newIRQLatch()
	g := newGate()
	s := newSerial(t, irq, g)
	d := newDriver(s)
	stop := d.cpu(irq)
	defer stop()
	d.startup()
	output, input := pattern(4*uartOutputSize, 1), pattern(64<<10, 2)
	d.send(output)
	<-g.entered // the ring fills up behind a writer that does not take
	close(g.open)
	if n, err := s.InputAll(deadline(t), input); err != nil {
		t.Fatalf("the guest took %d of %d bytes: %v", n, len(input), err)
	}
	for len(d.received()) < len(input) {
		await(t, "the last of the input", d.arrived)
	}
	await(t, "the last of the output", d.sent)
	if err := s.Flush(deadline(t)); err != nil {
		t.Fatal(err)
	}
	wantSame(t, "output", g.bytes(), output)
	wantSame(t, "input", d.received(), input)
	if n := s.Dropped(); n != 0 {
		t.Errorf("%d bytes dropped", n)
	}
}

// TestSerialEchoesAPaste: what is typed comes back while more is typed.
func TestSerialEchoesAPaste(t *testing.T) {
	irq := newIRQLatch()
	g := newGate()
	close(g.open)
	s := newSerial(t, irq, g)
	d := newDriver(s)
	d.echo = true
	stop := d.cpu(irq)
	defer stop()
	d.startup()
	paste := pattern(64<<10, 3)
	for rest := paste; len(rest) > 0; {
		n := min(len(rest), 1+len(rest)%37)
		if _, err := s.InputAll(deadline(t), rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	for len(d.received()) < len(paste) {
		await(t, "the last of the paste", d.arrived)
	}
	d.mu.Lock()
	busy := len(d.pending) > 0
	d.mu.Unlock()
	for busy {
		await(t, "the echo", d.sent)
		d.mu.Lock()
		busy = len(d.pending) > 0
		d.mu.Unlock()
	}
	if err := s.Flush(deadline(t)); err != nil {
		t.Fatal(err)
	}
	wantSame(t, "echo", g.bytes(), paste)
}
