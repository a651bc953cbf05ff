package balloon

import (
	"testing"

	"microvm/devices/virtio"
	"microvm/devices/virtio/virtiotest"
	"microvm/memslot"
)

// FuzzLoad: see virtiotest.
func FuzzLoad(f *testing.F) {
	virtiotest.FuzzLoad(f, func(t testing.TB, mem *memslot.Memory, irq virtiotest.IRQ) *virtio.MMIO {
		m, _ := newMMIO(t, Options{Target: 64 << 10, Reporting: true}, mem, irq)
		return m
	}, nil)
}
