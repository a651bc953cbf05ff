package devices

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// hangs is how long a test waits for what must come before it says that it
// doesn't.
const hangs = 30 * time.Second

// deadline ends with the test, or when something hangs.
func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), hangs)
	t.Cleanup(cancel)
	return ctx
}

// irqLatch is an edge-triggered line as an interrupt controller sees it: it
// remembers one edge until the CPU takes it.
type irqLatch chan struct{}

func newIRQLatch() irqLatch { return make(irqLatch, 1) }

func (l irqLatch) Trigger() error {
	select {
	case l <- struct{}{}:
	default:
	}
	return nil
}

// taken reports whether an edge had come, and takes it.
func (l irqLatch) taken() bool {
	select {
	case <-l:
		return true
	default:
		return false
	}
}

// wait takes the edge that has to come.
func (l irqLatch) wait(t testing.TB) {
	t.Helper()
	select {
	case <-l:
	case <-time.After(hangs):
		t.Fatal("no interrupt came")
	}
}

var errLine = errors.New("eventfd gone")

// brokenIRQ fails.
type brokenIRQ struct{}

func (brokenIRQ) Trigger() error { return errLine }
func (brokenIRQ) Set(bool) error { return errLine }

// level is a level-triggered line.
type level struct {
	mu   sync.Mutex
	high bool
	sets int
}

func (l *level) Set(high bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.high = high
	l.sets++
	return nil
}

// gate is a writer that holds every Write up while it is closed.
type gate struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	entered chan struct{} // a Write has come; capacity 1
	open    chan struct{}
}

func newGate() *gate {
	return &gate{entered: make(chan struct{}, 1), open: make(chan struct{})}
}

func (g *gate) Write(p []byte) (int, error) {
	select {
	case g.entered <- struct{}{}:
	default:
	}
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buf.Write(p)
}

func (g *gate) bytes() []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	return bytes.Clone(g.buf.Bytes())
}

// newSerial returns a port that is closed with the test.
func newSerial(t testing.TB, irq Interrupt, out io.Writer) *Serial {
	s := NewSerial(irq, out)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func in(d Device, off uint64) byte {
	var b [1]byte
	d.Read(off, b[:])
	return b[0]
}

func outb(d Device, off uint64, v byte) { d.Write(off, []byte{v}) }

func wantByte(t *testing.T, what string, got, want byte) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %#02x, want %#02x", what, got, want)
	}
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", parts)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q does not say %q", err, p)
		}
	}
}
