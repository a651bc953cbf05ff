package virtio_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"

	"microvm/devices/virtio/virtiotest"
)

// TestRequestsGoOnInAnotherDevice moves a device again and again while its
// driver works: no request is lost, none is done twice.
func TestRequestsGoOnInAnotherDevice(t *testing.T) {
	r := newRig(t, 16)
	r.Init(allFeatures)
	q := r.NewQueue(0, 16)
	r.OK()
	rnd := rand.New(rand.NewPCG(1, 2))
	next, done := byte(0), byte(0)
	for range 40 {
		for range rnd.IntN(6) {
			if next-done == 8 {
				break
			}
			q.Add(arena+uint64(next%8)*256, 0, -1, virtiotest.Buf{Data: []byte{next}}, virtiotest.Buf{Room: 1})
			next++
		}
		if rnd.IntN(2) == 0 {
			q.Kick()
		}
		r.mmio.Device().Hold()
		state, err := r.mmio.Save()
		if err != nil {
			t.Fatal(err)
		}
		r.mmio = newMMIO(t, &echo{queues: []uint16{16}}, r.Mem, r.IRQ)
		if err := r.mmio.Load(r.mmio.Version(), state); err != nil {
			t.Fatal(err)
		}
		if again, err := r.mmio.Save(); err != nil || !bytes.Equal(again, state) {
			t.Fatalf("saved again: %v\n% x, want\n% x", err, again, state)
		}
		r.Regs = r.mmio
		r.mmio.Device().Release()
		for n := rnd.IntN(int(next-done) + 1); n > 0; n-- {
			if _, _, data := q.Wait(); data[0] == 0 {
				t.Fatal("answered without an answer")
			}
			done++
		}
	}
	for done != next {
		q.Wait()
		done++
	}
	if _, _, _, more := q.Done(); more {
		t.Error("a request was done twice")
	}
}

func TestUnacknowledgedInterruptIsRaisedWhereTheDeviceArrives(t *testing.T) {
	r := newRig(t, 16)
	r.Init(allFeatures)
	r.NewQueue(0, 16)
	r.OK()
	r.mmio.Device().ConfigChanged()
	r.mmio.Device().Hold()
	state, err := r.mmio.Save()
	if err != nil {
		t.Fatal(err)
	}
	irq := virtiotest.NewIRQ()
	there := newMMIO(t, &echo{queues: []uint16{16}}, r.Mem, irq)
	if err := there.Load(there.Version(), state); err != nil {
		t.Fatal(err)
	}
	irq.Wait(t)
}

// savedState is the state of a device with one queue in use, and one not.
func savedState(t testing.TB) []byte {
	r := newRig(t, 16, 16)
	r.Init(allFeatures)
	q := r.NewQueue(0, 16)
	r.OK()
	q.Do(arena, virtiotest.Buf{Data: []byte{1}}, virtiotest.Buf{Room: 1})
	r.mmio.Device().Hold()
	state, err := r.mmio.Save()
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func TestForeignStateIsRefused(t *testing.T) {
	good := savedState(t)
	mem, _ := virtiotest.NewMemory(t, 4<<20)
	const core, queue0 = 24, 24 + 28
	le := binary.LittleEndian
	for _, c := range []struct {
		name  string
		spoil func(b []byte) []byte
		want  string
	}{
		{"nothing", func(b []byte) []byte { return nil }, "0 bytes"},
		{"half", func(b []byte) []byte { return b[:len(b)/2] }, "bytes"},
		{"longer", func(b []byte) []byte { return append(b, 0) }, "by its lengths"},
		{"transport", func(b []byte) []byte { b[0] = 2; return b }, "transport 2"},
		{"interrupts", func(b []byte) []byte { b[4] = 4; return b }, "reserved bits 0x4"},
		{"padding", func(b []byte) []byte { b[20] = 1; return b }, "padding"},
		{"type", func(b []byte) []byte { b[core] = 2; return b }, "type 2"},
		{"status", func(b []byte) []byte { b[core+4] |= 16; return b }, "reserved bits 0x10"},
		{"too early", func(b []byte) []byte { b[core+4] = 4; return b }, "without FEATURES_OK"},
		{"features", func(b []byte) []byte { b[core+8] |= 1; return b }, "bit 0"},
		{"legacy", func(b []byte) []byte { le.PutUint64(b[core+8:], 0); return b }, "VERSION_1"},
		{"queues", func(b []byte) []byte { b[core+20] = 3; return b }, "3 queues, this device has 2"},
		{"length", func(b []byte) []byte { le.PutUint32(b[core+24:], 1<<31); return b }, "by its lengths"},
		{"size", func(b []byte) []byte { b[queue0] = 17; return b }, "queue 0: size 17"},
		{"ready", func(b []byte) []byte { b[queue0+2] = 2; return b }, "neither ready"},
		{"alignment", func(b []byte) []byte { b[queue0+8] = 1; return b }, "aligned"},
		{"backend", func(b []byte) []byte { b[core+24]--; return b[:len(b)-1] }, "7 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMMIO(t, &echo{queues: []uint16{16, 16}}, mem, virtiotest.NewIRQ())
			before, err := m.Save()
			if err != nil {
				t.Fatal(err)
			}
			err = m.Load(m.Version(), c.spoil(bytes.Clone(good)))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "echo0") {
				t.Errorf("%v, want %q in it", err, c.want)
			}
			if after, err := m.Save(); err != nil || !bytes.Equal(after, before) {
				t.Error("what was refused has changed something")
			}
		})
	}
	m := newMMIO(t, &echo{queues: []uint16{16, 16}}, mem, virtiotest.NewIRQ())
	if err := m.Load(m.Version()+1, good); err == nil || !strings.Contains(err.Error(), "version 104") {
		t.Errorf("another version: %v", err)
	}
	if err := m.Load(m.Version(), good); err != nil {
		t.Error(err)
	}
}
