package virtiotest

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"
	"time"

	"microvm/devices/virtio"
	"microvm/memslot"
)

const (
	loadRAM = 1 << 20
	// loadArea is where in it what a fuzzer chooses is put: the driver's rings,
	// and then its buffers.
	loadArea    = 4096
	loadBuffers = 0x8_0000
	// settling bounds how long the workers are given to look at their queues:
	// one that waits for a frame does not come back.
	settling = time.Millisecond
)

// FuzzLoad gives devices of a kind states that are not of their making, and
// guest memory that is not of their driver's. A state that is taken is the one
// that is saved, by this device and by another one that takes it over. Then it
// runs on what the state says, comes to rest, and can be reset.
//
// build makes a device that is held. normal, if there is one, makes those parts
// of a state alike that a device does not keep.
func FuzzLoad(f *testing.F, build func(t testing.TB, mem *memslot.Memory, irq IRQ) *virtio.MMIO, normal func(state []byte)) {
	state, ram := working(f, build)
	f.Add(state, ram)
	f.Add(state, []byte(nil))
	f.Fuzz(func(t *testing.T, state, ram []byte) {
		mem, _ := NewMemory(t, loadRAM)
		if err := mem.WriteAt(ram[:min(len(ram), loadRAM-loadArea)], loadArea); err != nil {
			t.Fatal(err)
		}
		state = bytes.Clone(state)
		m := build(t, mem, NewIRQ())
		if m.Load(m.Version(), state) != nil {
			return
		}
		state = same(t, m, state, normal)
		again := build(t, mem, NewIRQ())
		if err := again.Load(again.Version(), state); err != nil {
			t.Fatalf("what it has saved is refused: %v", err)
		}
		same(t, again, state, normal)
		run(t, m)
	})
}

// same checks that a device saves the state that it was given, and returns it.
func same(t testing.TB, m *virtio.MMIO, state []byte, normal func(state []byte)) []byte {
	t.Helper()
	saved, err := m.Save()
	if err != nil {
		t.Fatal(err)
	}
	if normal != nil {
		normal(state)
		normal(saved)
	}
	if !bytes.Equal(saved, state) {
		t.Fatalf("% x was taken, and is % x", state, saved)
	}
	return saved
}

// working is the state of a device whose driver works, with a request in each of
// its queues, and what the driver has in memory.
func working(t testing.TB, build func(t testing.TB, mem *memslot.Memory, irq IRQ) *virtio.MMIO) (state, ram []byte) {
	t.Helper()
	mem, _ := NewMemory(t, loadRAM)
	irq := NewIRQ()
	m := build(t, mem, irq)
	d := NewDriver(t, m, mem, loadArea, irq)
	d.Init(d.Offered())
	for i := range m.Device().Queues() {
		q := d.NewQueue(uint32(i), 16)
		q.Add(loadBuffers, 0, -1, Buf{Data: make([]byte, 64)}, Buf{Room: 2048})
	}
	d.OK()
	state, err := m.Save()
	if err != nil {
		t.Fatal(err)
	}
	return state, bytes.TrimRight(d.read(loadArea, loadBuffers-loadArea), "\x00")
}

// run has a device do what its queues say, and be reset.
func run(t testing.TB, m *virtio.MMIO) {
	t.Helper()
	d := NewDriver(t, m, nil, 0, nil)
	queues := m.Device().Queues()
	var ready []*virtio.Queue
	for i, q := range queues {
		d.Set(0x30, uint32(i))
		if d.Get(0x44) == 1 {
			ready = append(ready, q)
		}
		// Found when the queue has been looked at once.
		m.Write(virtio.MMIONotify, binary.LittleEndian.AppendUint32(nil, uint32(i)))
	}
	m.Device().Release()
	for late := time.Now().Add(settling); len(ready) > 0 && time.Now().Before(late); {
		if ready[0].Stats().Kicks > 0 || d.Get(0x70)&(4|64) != 4 {
			ready = ready[1:]
		}
		runtime.Gosched()
	}
	d.Config(0, 64)
	m.Device().Hold()
	if _, err := m.Save(); err != nil {
		t.Error(err)
	}
	d.Set(0x70, 0)
	m.Device().Release()
	if status := d.Get(0x70); status != 0 {
		t.Errorf("status %#x after a reset", status)
	}
}
