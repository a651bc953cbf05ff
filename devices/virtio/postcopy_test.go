package virtio_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"microvm/devices/virtio/virtiotest"
	"microvm/memslot"
)

// fetcher brings pages of one block to another, each when it is asked for. A
// page that is touched before it has come is zero, and so is what is read.
func fetcher(t *testing.T, from, to *memslot.Block) (fetched chan uint64) {
	ask := make(chan uint64, to.Pages())
	fetched = make(chan uint64, to.Pages())
	if err := to.Expect(func(page uint64) { ask <- page }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(ask) })
	go func() {
		for page := range ask {
			size := to.PageSize()
			src, err := from.View(page*size, size)
			if err != nil {
				t.Error(err)
			}
			// Not by an accessor, which would wait for the page.
			_, err = unix.ProcessVMWritev(unix.Getpid(),
				[]unix.Iovec{{Base: &src[0], Len: size}},
				[]unix.RemoteIovec{{Base: to.Addr() + uintptr(page*size), Len: int(size)}}, 0)
			if err != nil {
				t.Error(err)
			}
			to.MarkPresent(page, 1)
			fetched <- page
		}
	}()
	return fetched
}

// TestDeviceGoesOnBeforeItsMemoryHasCome: a device that has moved finds its
// rings, tables and buffers though each page of them is still at the source.
func TestDeviceGoesOnBeforeItsMemoryHasCome(t *testing.T) {
	r := newRig(t, 16)
	r.Init(allFeatures)
	q := r.NewQueue(0, 16)
	r.OK()
	q.Do(arena, virtiotest.Buf{Data: []byte{1}}, virtiotest.Buf{Room: 1})
	r.mmio.Device().Hold()
	q.Add(arena+4090, 4096, 1, virtiotest.Buf{Data: []byte("0123456789")}, virtiotest.Buf{Room: 4}, virtiotest.Buf{Room: 6})
	state, err := r.mmio.Save()
	if err != nil {
		t.Fatal(err)
	}
	mem, block := virtiotest.NewMemory(t, 4<<20)
	fetched := fetcher(t, r.block, block)
	there := newMMIO(t, &echo{queues: []uint16{16}}, mem, r.IRQ)
	if err := there.Load(there.Version(), state); err != nil {
		t.Fatal(err)
	}
	if n := len(fetched); n != 0 {
		t.Errorf("to load its state it had %d pages fetched", n)
	}
	r.Regs, r.Mem = there, mem
	there.Device().Release()
	if _, written, data := q.Wait(); written != 10 || string(data) != "123456789:" {
		t.Errorf("%d bytes: %q", written, data)
	}
}

// TestDeviceEndsThoughItsMemoryWillNotCome: a VM whose source is lost can be
// ended.
func TestDeviceEndsThoughItsMemoryWillNotCome(t *testing.T) {
	r := newRig(t, 16)
	r.Init(allFeatures)
	r.NewQueue(0, 16)
	r.OK()
	d := r.mmio.Device()
	d.Hold()
	asked := make(chan uint64, r.block.Pages())
	if err := r.block.Expect(func(page uint64) { asked <- page }); err != nil {
		t.Fatal(err)
	}
	d.Release()
	<-asked
	r.block.Fail(memslot.ErrAbsent)
	d.Hold()
	if status := r.Get(0x70); status&needsReset == 0 {
		t.Errorf("status %#x: it does not know that its memory is lost", status)
	}
}
