package rng

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"microvm/devices/virtio"
	"microvm/devices/virtio/virtiotest"
	"microvm/memslot"
)

const (
	ramSize = 4 << 20
	arena   = 1 << 20
)

type rig struct {
	*virtiotest.Driver
	rng   *RNG
	mmio  *virtio.MMIO
	block *memslot.Block
	queue *virtiotest.Queue
}

// newMMIO is a held device that ends with the test.
func newMMIO(t testing.TB, mem *memslot.Memory, irq virtiotest.IRQ) (*virtio.MMIO, *RNG) {
	t.Helper()
	r := New()
	return virtiotest.NewMMIO(t, "rng0", r, mem, irq, slog.New(slog.DiscardHandler)), r
}

func newRig(t testing.TB) *rig {
	t.Helper()
	mem, block := virtiotest.NewMemory(t, ramSize)
	irq := virtiotest.NewIRQ()
	m, backend := newMMIO(t, mem, irq)
	r := &rig{Driver: virtiotest.NewDriver(t, m, mem, 4096, irq), rng: backend, mmio: m, block: block}
	m.Device().Release()
	r.start()
	return r
}

// start resets the device and brings it up.
func (r *rig) start() {
	r.T.Helper()
	r.Init(r.Offered())
	r.queue = r.NewQueue(0, 16)
	r.OK()
}

// ask has the device fill n bytes.
func (r *rig) ask(n int) []byte {
	r.T.Helper()
	written, data := r.queue.Do(arena, virtiotest.Buf{Room: n})
	if written == 0 || int(written) > n {
		r.T.Fatalf("%d bytes of %d", written, n)
	}
	return data[:written]
}

// TestEveryRequestGetsOtherBytes in all of the room that there is, up to the
// most, and none beyond.
func TestEveryRequestGetsOtherBytes(t *testing.T) {
	r := newRig(t)
	seen := map[string]bool{}
	for _, n := range []int{64, 64, 1000, most, most + 1, 3 * most, 64} {
		if err := r.Mem.WriteAt(make([]byte, 4*most), arena); err != nil {
			t.Fatal(err)
		}
		got := r.ask(n)
		if len(got) != min(n, most) {
			t.Errorf("%d bytes of %d", len(got), n)
		}
		rest := make([]byte, 4*most-len(got))
		if err := r.Mem.ReadAt(rest, arena+uint64(len(got))); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(rest, make([]byte, len(rest))) {
			t.Errorf("a request of %d bytes has more written than it says", n)
		}
		for i := 0; i+32 <= len(got); i += 32 {
			if part := string(got[i : i+32]); seen[part] {
				t.Fatalf("the same 32 bytes again: %x", part)
			} else {
				seen[part] = true
			}
		}
	}
	if s := r.rng.Counts().Of("read"); s.Requests != 7 || s.Bytes != 64*3+1000+3*most {
		t.Errorf("it has counted %+v", s)
	}
}

// TestBytesAreMarkedDirty: what the device writes while memory is sent is sent
// again.
func TestBytesAreMarkedDirty(t *testing.T) {
	r := newRig(t)
	if err := r.block.StartDirtyLog(); err != nil {
		t.Fatal(err)
	}
	r.ask(64)
	if !r.block.Dirty().Test(arena / 4096) {
		t.Error("the page is not dirty")
	}
}

// TestADriverThatAsksWithoutEndIsKeptToTheRate: whether it asks for much or
// often. It can only take longer than that, however slow the machine is.
func TestADriverThatAsksWithoutEndIsKeptToTheRate(t *testing.T) {
	for _, n := range []int{most, 1} {
		r := newRig(t)
		began := time.Now()
		total := time.Duration(0)
		for range 64 {
			r.ask(n)
			total += time.Duration(max(n, leastCost)) * time.Second / rate
		}
		// The last request is answered before its own rest.
		if took := time.Since(began); took < total-2*slack {
			t.Errorf("64 requests of %d bytes in %v, at the rate they take %v", n, took, total)
		}
		if r.rng.Counts().Counters["rests"] == 0 {
			t.Errorf("requests of %d bytes: it has not rested", n)
		}
	}
}

func TestDriverThatIsWrongHasToReset(t *testing.T) {
	r := newRig(t)
	for name, d := range map[string]virtiotest.Desc{
		"nothing to write": {GPA: arena, Len: 64},
		"no RAM there":     {GPA: ramSize - 32, Len: 64, Flags: virtiotest.Write},
	} {
		t.Run(name, func(t *testing.T) {
			r.queue.Put(0, d)
			r.queue.Offer(0)
			r.queue.Kick()
			for r.Get(0x70)&64 == 0 { // an interrupt may be that of the request before
				r.IRQ.Wait(t)
			}
			r.start()
			r.ask(64)
		})
	}
}

// TestRequestsWaitWhereTheyMove: one that was made while the device was held is
// answered by the one that has taken its place.
func TestRequestsWaitWhereTheyMove(t *testing.T) {
	r := newRig(t)
	r.ask(64)
	r.mmio.Device().Hold()
	r.queue.Add(arena, 0, -1, virtiotest.Buf{Room: 100})
	state, err := r.mmio.Save()
	if err != nil {
		t.Fatal(err)
	}
	there, _ := newMMIO(t, r.Mem, r.IRQ)
	if err := there.Load(there.Version(), append(state, 0)); err == nil {
		t.Error("a state that is too long was taken")
	}
	if err := there.Load(there.Version(), state); err != nil {
		t.Fatal(err)
	}
	r.Regs = there
	there.Device().Release()
	if _, written, data := r.queue.Wait(); written != 100 || bytes.Equal(data, make([]byte, 100)) {
		t.Errorf("%d bytes", written)
	}
}

// FuzzHostileDriver offers requests of any shape: what they leave of the device
// is one that works after a reset.
func FuzzHostileDriver(f *testing.F) {
	f.Add([]byte{1, 64, 0, 0, 2, 0, 255, 255})
	f.Add([]byte{2, 255, 255, 255, 1, 1, 1, 1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, steps []byte) {
		r := newRig(t)
		for len(steps) >= 4 && len(steps) < 1024 {
			n := uint32(steps[1]) | uint32(steps[2])<<8 | uint32(steps[3]&0xF)<<16
			d := virtiotest.Desc{GPA: uint64(steps[3]) << 15, Len: n, Flags: uint16(steps[0]) & 3, Next: uint16(steps[0]>>2) & 15}
			head := uint16(steps[0]>>4) & 15
			r.queue.Put(head, d)
			r.queue.Offer(head)
			r.Set(0x50, 0)
			steps = steps[4:]
		}
		r.mmio.Device().Hold()
		if _, err := r.mmio.Save(); err != nil {
			t.Error(err)
		}
		r.mmio.Device().Release()
		r.start()
		r.ask(64)
	})
}
