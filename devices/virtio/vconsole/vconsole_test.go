package vconsole

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"microvm/devices/virtio"
	"microvm/devices/virtio/virtiotest"
)

const (
	ramSize  = 4 << 20
	arena    = 1 << 20
	patience = 20 * time.Second
)

// screen is a writer that takes what comes only while it is let.
type screen struct {
	gate chan struct{} // closed: it takes what comes

	mu   sync.Mutex
	text bytes.Buffer
	fail error
}

func newScreen(open bool) *screen {
	s := &screen{gate: make(chan struct{})}
	if open {
		close(s.gate)
	}
	return s
}

func (s *screen) Write(p []byte) (int, error) {
	<-s.gate
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return 0, s.fail
	}
	return s.text.Write(p)
}

// rig is a console on a machine without vCPUs, and its driver.
type rig struct {
	*virtiotest.Driver
	d      *Device
	mmio   *virtio.MMIO
	rx, tx *virtiotest.Queue
}

func newRig(t testing.TB, w io.Writer) *rig {
	t.Helper()
	mem, _ := virtiotest.NewMemory(t, ramSize)
	irq := virtiotest.NewIRQ()
	log := slog.New(slog.DiscardHandler)
	r := &rig{d: New(w)}
	r.mmio = virtiotest.NewMMIO(t, "console0", r.d, mem, irq, log)
	r.Driver = virtiotest.NewDriver(t, r.mmio, mem, 4096, irq)
	r.mmio.Device().Release()
	return r
}

// init has a driver come.
func (r *rig) init() {
	r.T.Helper()
	r.Init(r.Offered())
	r.rx, r.tx = r.NewQueue(queueReceive, 16), r.NewQueue(queueTransmit, 16)
	r.OK()
}

// flush waits until all that was taken is written.
func (r *rig) flush() {
	r.T.Helper()
	ctx, cancel := context.WithTimeout(r.T.Context(), patience)
	defer cancel()
	if err := r.d.Flush(ctx); err != nil {
		r.T.Fatal(err)
	}
}

// typed types, which does not wait.
func (r *rig) typed(text string) {
	r.T.Helper()
	if n, err := r.d.InputAll(r.T.Context(), []byte(text)); n != len(text) || err != nil {
		r.T.Fatalf("%d bytes of %q, %v", n, text, err)
	}
}

func TestWhatTheGuestPrintsIsWritten(t *testing.T) {
	s := newScreen(true)
	r := newRig(t, s)
	r.init()
	want := []byte(nil)
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		line := make([]byte, 1+random.IntN(20<<10))
		for i := range line {
			line[i] = byte(random.Uint32())
		}
		want = append(want, line...)
		half := random.IntN(len(line))
		if written, _ := r.tx.Do(arena, virtiotest.Buf{Data: line[:half]}, virtiotest.Buf{Data: line[half:]}); written != 0 {
			t.Errorf("%d bytes are written to what it printed", written)
		}
	}
	r.flush()
	if !bytes.Equal(s.text.Bytes(), want) {
		t.Error("something else is written")
	}
	if c := r.d.Counts().Of("transmit"); c.Requests != 50 || c.Bytes != uint64(len(want)) {
		t.Errorf("%+v", c)
	}
}

func TestWhatIsTypedReachesTheGuest(t *testing.T) {
	r := newRig(t, io.Discard)
	if r.d.Live() {
		t.Error("there is a driver already")
	}
	if n, err := r.d.InputAll(t.Context(), []byte("x")); n != 0 || err != nil {
		t.Errorf("%d bytes go to nobody: %v", n, err)
	}
	r.init()
	if !r.d.Live() {
		t.Error("there is no driver")
	}
	r.typed("early") // before there is a buffer
	r.rx.Add(arena, 0, -1, virtiotest.Buf{Room: 3})
	r.rx.Add(arena+100, 0, -1, virtiotest.Buf{Room: 100})
	r.rx.Kick()
	for _, want := range []string{"ear", "ly"} {
		if _, n, data := r.rx.Wait(); string(data[:n]) != want {
			t.Errorf("the guest got %q, want %q", data[:n], want)
		}
	}
	r.rx.Add(arena, 0, -1, virtiotest.Buf{Room: 100})
	r.rx.Kick()
	r.typed("later")
	if _, n, data := r.rx.Wait(); string(data[:n]) != "later" {
		t.Errorf("the guest got %q", data[:n])
	}
	// A guest that does not read is waited for; then it has all of it.
	long := bytes.Repeat([]byte("0123456789"), 1000)
	done := make(chan error)
	go func() {
		_, err := r.d.InputAll(t.Context(), long)
		done <- err
	}()
	var got []byte
	for len(got) < len(long) {
		r.rx.Add(arena, 0, -1, virtiotest.Buf{Room: 1000})
		r.rx.Kick()
		_, n, data := r.rx.Wait()
		got = append(got, data[:n]...)
	}
	if err := <-done; err != nil || !bytes.Equal(got, long) {
		t.Errorf("%v: the guest got something else", err)
	}
	r.Set(0x70, 0)
	if r.d.Live() {
		t.Error("the driver has gone")
	}
}

func TestTheGuestHearsOfItsTerminalsSize(t *testing.T) {
	r := newRig(t, io.Discard)
	r.d.Resize(80, 25)
	r.init()
	if got := r.Config(0, 8); !bytes.Equal(got, []byte{80, 0, 25, 0, 1, 0, 0, 0}) {
		t.Errorf("configuration %v", got)
	}
	if r.d.Resize(80, 25) {
		t.Error("the same size is news")
	}
	before := r.Get(0xFC)
	if !r.d.Resize(300, 100) {
		t.Error("another size is no news")
	}
	r.mmio.Device().ConfigChanged()
	r.IRQ.Wait(t)
	if r.Get(0x60)&2 == 0 || r.Get(0xFC) == before || !bytes.Equal(r.Config(0, 4), []byte{44, 1, 100, 0}) {
		t.Errorf("interrupt %d, configuration %v", r.Get(0x60), r.Config(0, 4))
	}
}

// TestAScreenThatStandsHoldsUpNoPause: what it has not taken, and what it has, is
// known on the other side; nothing is lost, nothing comes twice.
func TestAScreenThatStandsHoldsUpNoPause(t *testing.T) {
	here := newScreen(false)
	r := newRig(t, here)
	r.init()
	want := make([]byte, 5*outputSize)
	rand.NewChaCha8([32]byte{3}).Read(want)
	r.tx.Add(arena, 0, -1, virtiotest.Buf{Data: want})
	r.tx.Kick()
	virtiotest.Until(t, "the output is full", func() bool { return full(&r.d.out) })
	r.typed("typed ahead")
	r.d.Resize(100, 40)
	r.mmio.Device().Hold() // which returns
	state, err := r.mmio.Save()
	if err != nil {
		t.Fatal(err)
	}
	// While it rests, nothing more is typed.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if n, err := r.d.InputAll(ctx, []byte("x")); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%d bytes, %v", n, err)
	}
	close(here.gate)
	r.flush()

	there := newScreen(true)
	other := newRig(t, there)
	other.mmio.Device().Hold()
	memory := make([]byte, ramSize)
	if err := errors.Join(r.Mem.ReadAt(memory, 0), other.Mem.WriteAt(memory, 0), other.mmio.Load(other.mmio.Version(), state)); err != nil {
		t.Fatal(err)
	}
	*r.Driver = *other.Driver // the queues' driver drives there
	r.Features = r.Offered()
	if !other.d.Live() {
		t.Error("there is no driver")
	}
	other.mmio.Device().Release()
	r.tx.Wait()
	other.flush()
	if got := append(here.text.Bytes(), there.text.Bytes()...); !bytes.Equal(got, want) {
		t.Errorf("%d bytes here and %d there are not the %d that were printed", here.text.Len(), there.text.Len(), len(want))
	}
	if here.text.Len() == 0 || there.text.Len() == 0 {
		t.Error("all was written on one side")
	}
	r.rx.Add(arena, 0, -1, virtiotest.Buf{Room: 100})
	r.rx.Kick()
	if _, n, data := r.rx.Wait(); string(data[:n]) != "typed ahead" {
		t.Errorf("the guest got %q", data[:n])
	}
	if got := r.Config(0, 4); !bytes.Equal(got, []byte{100, 0, 40, 0}) {
		t.Errorf("size %v", got)
	}
}

// full reports whether the output takes no more.
func full(o *output) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.pending) == outputSize && len(o.writing) > 0
}

// TestAWriterThatFailsHoldsUpNobody, and what it refused is counted.
func TestAWriterThatFailsHoldsUpNobody(t *testing.T) {
	s := newScreen(true)
	s.fail = errors.New("no screen")
	r := newRig(t, s)
	r.init()
	for range 10 {
		r.tx.Do(arena, virtiotest.Buf{Data: make([]byte, outputSize)})
	}
	if err := r.d.Flush(t.Context()); !errors.Is(err, s.fail) {
		t.Error(err)
	}
	if n := r.d.Counts().Counters["lost_bytes"]; n != 10*outputSize {
		t.Errorf("%d bytes are lost", n)
	}
}

func TestAStateThatIsNoneIsRefused(t *testing.T) {
	d := New(io.Discard)
	defer d.Close()
	le := binary.LittleEndian
	for name, b := range map[string][]byte{
		"short":     make([]byte, stateSize-1),
		"a driver":  le.AppendUint32(make([]byte, 8), 2),
		"missing":   le.AppendUint32(make([]byte, 8), 1<<16),
		"more":      make([]byte, stateSize+1),
		"too much ": append(le.AppendUint32(make([]byte, 8), (inputSize+1)<<16), make([]byte, inputSize+1)...),
	} {
		if d.LoadState(b) == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
}

// FuzzHostileDriver plays a guest whose queues and memory are anything. A step is
// an address, or a register, and what is put there.
func FuzzHostileDriver(f *testing.F) {
	step := func(at uint16, v uint64) []byte {
		return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint16(nil, at), v)
	}
	f.Add(append(step(0x1000, arena), append(step(0x1008, 64|virtiotest.Write<<32), step(0x1100, 1<<16)...)...))
	f.Add(append(step(0x3000, arena), append(step(0x3008, 0xFFFF_FFFF), step(0x3100, 1<<16)...)...))
	f.Fuzz(func(t *testing.T, steps []byte) {
		s := newScreen(true)
		r := newRig(t, s)
		r.init()
		r.d.in.put([]byte("typed"))
		for len(steps) >= 10 && len(steps) < 4096 {
			at, v := binary.LittleEndian.Uint16(steps), steps[2:10]
			steps = steps[10:]
			if at < 0x400 {
				r.Set(uint64(at), uint32(v[0]))
			} else if err := r.Mem.WriteAt(v, uint64(at)); err != nil {
				t.Fatal(err)
			}
			r.Set(0x50, queueReceive)
			r.Set(0x50, queueTransmit)
			if v[7] == 0xAA {
				r.mmio.Device().Hold()
				state, err := r.mmio.Save()
				if err == nil {
					err = r.mmio.Load(r.mmio.Version(), state)
				}
				if err != nil {
					t.Error(err)
				}
				r.mmio.Device().Release()
			}
		}
		r.Set(0x70, 0)
		r.flush()
		s.mu.Lock()
		s.text.Reset()
		s.mu.Unlock()
		r.init()
		r.tx.Do(arena, virtiotest.Buf{Data: []byte("still here")})
		r.flush()
		if s.text.String() != "still here" {
			t.Errorf("it prints %q", s.text.String())
		}
	})
}

// FuzzLoadState gives a console states that are not of its making.
func FuzzLoadState(f *testing.F) {
	f.Add(append(make([]byte, 11), 0, 'x'))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := New(io.Discard)
		defer d.Close()
		if d.LoadState(b) != nil {
			return
		}
		if again, err := d.SaveState(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x, %v, was %x", again, err, b)
		}
	})
}
