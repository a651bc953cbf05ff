package vsock

import (
	"log/slog"
	"testing"

	"microvm/devices/virtio"
	"microvm/devices/virtio/virtiotest"
	"microvm/memslot"
)

// FuzzLoad: see virtiotest. A driver whose device has been loaded is told of a
// reset in any case.
func FuzzLoad(f *testing.F) {
	log := slog.New(slog.DiscardHandler)
	virtiotest.FuzzLoad(f, func(t testing.TB, mem *memslot.Memory, irq virtiotest.IRQ) *virtio.MMIO {
		d, err := New(Options{CID: guestCID, Path: "/nowhere", Log: log})
		if err != nil {
			t.Fatal(err)
		}
		return virtiotest.NewMMIO(t, "vsock0", d, mem, irq, log)
	}, func(state []byte) { state[len(state)-4] = 1 })
}
