package blk

import (
	"testing"

	"microvm/devices/virtio"
	"microvm/devices/virtio/virtiotest"
	"microvm/memslot"
)

// FuzzLoad: see virtiotest.
func FuzzLoad(f *testing.F) {
	path, _ := newImage(f, f.TempDir(), 64<<10)
	virtiotest.FuzzLoad(f, func(t testing.TB, mem *memslot.Memory, irq virtiotest.IRQ) *virtio.MMIO {
		m, _ := newMMIO(t, path, false, Options{Queues: 2}, mem, irq)
		return m
	}, nil)
}
