package net

import (
	"bytes"
	"encoding/binary"
	"testing"

	"microvm/devices/virtio"
	"microvm/devices/virtio/virtiotest"
	"microvm/memslot"
)

// FuzzHostileDriver has a card do what a guest's memory says, whatever that is,
// while frames come and it is paused and moves on. It must neither panic nor
// hang, and work again after a reset.
func FuzzHostileDriver(f *testing.F) {
	step := func(at uint16, v ...uint64) (b []byte) {
		for i, v := range v {
			b = binary.LittleEndian.AppendUint16(b, at+uint16(8*i))
			b = binary.LittleEndian.AppendUint64(b, v)
		}
		return b
	}
	// The queues' tables are 0x1000 to 0x5000; see below.
	const desc, avail = 0x1000, 0x1800
	receive := bytes.Join([][]byte{
		step(desc, 0x8000, 2048|virtiotest.Write<<32, 0x9000, 64|virtiotest.Write<<32), step(avail+4, 0x0001_0000), step(avail, 2<<16), step(0),
	}, nil)
	send := bytes.Join([][]byte{
		step(0x8000, 0x0000_0000_0000_0101, 0), step(desc+0x1000, 0x8000, 12|virtiotest.Next<<32|1<<48, 0x8100, 100), step(avail+0x1000, 1<<16), step(1),
	}, nil)
	command := bytes.Join([][]byte{
		step(0x8000, 0x0002_0004), step(desc+0x4000, 0x8000, 4|virtiotest.Next<<32|1<<48, 0x8100, 1|virtiotest.Write<<32), step(avail+0x4000, 1<<16), step(4),
	}, nil)
	f.Add(receive, uint8(3))
	f.Add(send, uint8(0))
	f.Add(command, uint8(1))
	f.Add(bytes.Join([][]byte{command, receive, step(5), receive, send, step(5), step(6, 0)}, nil), uint8(40))
	f.Fuzz(func(t *testing.T, steps []byte, features uint8) {
		// Which of the features that change how frames are received.
		var without uint64
		for i, bit := range []uint64{featureMergeable, featureGuestTSO4 | featureGuestTSO6, featureGuestCsum, featurePairs, featureControl, 1 << 28, 1 << 29} {
			if features>>i&1 != 0 {
				without |= bit
			}
		}
		r := newRig(t, 2, 1<<63)
		r.Init(r.Offered() &^ without)
		for i := range uint32(5) {
			base := uint32(desc + 0x1000*i)
			r.Set(0x30, i)
			r.Set(0x38, 16)
			r.Set(0x80, base)
			r.Set(0x90, base+0x800)
			r.Set(0xA0, base+0xC00)
			r.Set(0x44, 1)
		}
		r.OK()
		for len(steps) >= 10 && len(steps) < 4096 {
			at, v := binary.LittleEndian.Uint16(steps), steps[2:10]
			steps = steps[10:]
			switch {
			case at < 5:
				r.Set(0x50, uint32(at))
			case at == 5:
				r.mmio.Device().Hold()
				if _, err := r.mmio.Save(); err != nil {
					t.Fatal(err)
				}
				r.mmio.Device().Release()
			case at == 6:
				_, _ = r.wires.ends[v[0]&1].Write(make([]byte, binary.LittleEndian.Uint16(v[1:]))) // its queue may be full
			case at < 0x1000:
				r.Set(uint64(at), uint32(v[0]))
			default:
				if err := r.Mem.WriteAt(v, uint64(at)); err != nil {
					t.Fatal(err)
				}
			}
		}
		r.mmio.Device().Hold()
		r.mmio.Device().Release()
		r.drive(r.Offered())
		r.room(0, 64, 1536)
		want := []byte("after a reset it works")
		r.wires.put(t, 0, want)
		_, got, _ := r.frame(0)
		checkFrame(t, "received", got, want)
	})
}

// FuzzLoad: see virtiotest.
func FuzzLoad(f *testing.F) {
	virtiotest.FuzzLoad(f, func(t testing.TB, mem *memslot.Memory, irq virtiotest.IRQ) *virtio.MMIO {
		m, _ := newMMIO(t, newWires(t, 2), mem, irq)
		return m
	}, nil)
}

// FuzzLoadState gives a card states that are not of its making.
func FuzzLoadState(f *testing.F) {
	r := newRig(f, 2, 0)
	r.mmio.Device().Hold()
	state, err := r.net.SaveState()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(state)
	waiting := append(bytes.Clone(state[:stateSize]), 20, 0, 0, 0)
	waiting = append(append(waiting, make([]byte, 20)...), 0, 0, 0, 0)
	f.Add(waiting)
	f.Fuzz(func(t *testing.T, state []byte) {
		if r.net.LoadState(state) != nil {
			return
		}
		again, err := r.net.SaveState()
		if err != nil || !bytes.Equal(again, state) {
			t.Errorf("%v: % x was taken, and is % x", err, state, again)
		}
	})
}
