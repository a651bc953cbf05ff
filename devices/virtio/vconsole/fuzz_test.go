package vconsole

import (
	"io"
	"log/slog"
	"testing"

	"microvm/devices/virtio"
	"microvm/devices/virtio/virtiotest"
	"microvm/memslot"
)

// FuzzLoad: see virtiotest.
func FuzzLoad(f *testing.F) {
	virtiotest.FuzzLoad(f, func(t testing.TB, mem *memslot.Memory, irq virtiotest.IRQ) *virtio.MMIO {
		return virtiotest.NewMMIO(t, "console0", New(io.Discard), mem, irq, slog.New(slog.DiscardHandler))
	}, nil)
}
