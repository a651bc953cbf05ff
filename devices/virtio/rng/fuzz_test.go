package rng

import (
	"testing"

	"microvm/devices/virtio"
	"microvm/devices/virtio/virtiotest"
	"microvm/memslot"
)

// FuzzLoad: see virtiotest. The device has no state but its queue.
func FuzzLoad(f *testing.F) {
	virtiotest.FuzzLoad(f, func(t testing.TB, mem *memslot.Memory, irq virtiotest.IRQ) *virtio.MMIO {
		m, _ := newMMIO(t, mem, irq)
		return m
	}, nil)
}
