package virtio_test

import (
	"encoding/binary"
	"testing"

	"microvm/devices/virtio"
	"microvm/devices/virtio/virtiotest"
	"microvm/memslot"
)

// FuzzHostileDriver plays a driver that writes what it likes to its queue, its
// tables and the device's registers, in any order. Each step is a kind, an
// address or register, and a value. The device must neither panic nor hang,
// must touch nothing past the end of RAM (the page after it is not mapped), and
// must work again after a reset.
func FuzzHostileDriver(f *testing.F) {
	step := func(kind byte, at uint16, v uint64) []byte {
		return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint16([]byte{kind}, at), v)
	}
	join := func(steps ...[]byte) (b []byte) {
		for _, s := range steps {
			b = append(b, s...)
		}
		return b
	}
	const desc, avail = 0x1000, 0x1100
	f.Add(join(step(0, desc, arena), step(0, desc+8, 64|virtiotest.Write<<32), step(0, avail, 1<<16), step(2, 0, 0)))
	f.Add(join(step(0, desc, 0x1000), step(0, desc+8, 64|virtiotest.Indirect<<32), step(0, avail, 5<<16), step(2, 0, 0)))
	f.Add(join(step(0, desc, arena), step(0, desc+8, 0xFFFF_FFFF|virtiotest.Next<<32), step(0, avail, 1<<16), step(2, 0, 0)))
	f.Add(join(step(1, 0x70, 0), step(1, 0x70, 15), step(2, 0, 0)))
	f.Fuzz(func(t *testing.T, steps []byte) {
		r := newRig(t, 16, 4)
		r.Init(allFeatures)
		r.NewQueue(0, 16)
		r.NewQueue(1, 4)
		r.OK()
		for len(steps) >= 11 && len(steps) < 4096 {
			kind, at, v := steps[0], binary.LittleEndian.Uint16(steps[1:]), binary.LittleEndian.Uint64(steps[3:])
			steps = steps[11:]
			switch kind % 5 {
			case 0:
				if err := r.Mem.WriteAt(binary.LittleEndian.AppendUint64(nil, v), uint64(at)); err != nil {
					t.Fatal(err)
				}
			case 1:
				r.Set(uint64(at%0x400), uint32(v))
			case 2:
				r.Set(0x50, uint32(v%3))
			case 3:
				r.Get(uint64(at % 0x400))
			case 4:
				r.mmio.Device().Hold()
				r.mmio.Device().Release()
			}
		}
		r.mmio.Device().Hold()
		if _, err := r.mmio.Save(); err != nil {
			t.Error(err)
		}
		r.mmio.Device().Release()
		r.works(t, allFeatures)
	})
}

// FuzzLoad: see virtiotest.
func FuzzLoad(f *testing.F) {
	virtiotest.FuzzLoad(f, func(t testing.TB, mem *memslot.Memory, irq virtiotest.IRQ) *virtio.MMIO {
		return newMMIO(t, &echo{queues: []uint16{16, 16}}, mem, irq)
	}, nil)
}
