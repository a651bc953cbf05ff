package blk

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"microvm/devices/virtio/virtiotest"
	"microvm/memslot"
)

// copyPage does what a migration's stream does with a page.
func copyPage(t *testing.T, from, to *memslot.Block, page uint64) {
	size := to.PageSize()
	src, err := from.View(page*size, size)
	if err != nil {
		t.Error(err)
	}
	// Not by an accessor, which would wait for the page.
	if _, err := unix.ProcessVMWritev(unix.Getpid(), []unix.Iovec{{Base: &src[0], Len: size}},
		[]unix.RemoteIovec{{Base: to.Addr() + uintptr(page*size), Len: int(size)}}, 0); err != nil {
		t.Error(err)
	}
}

// a load is requests that are under way.
type load struct {
	rnd   *rand.Rand
	reads map[uint16]uint64 // the sector, by the request's head
	lane  uint64
}

// lanes are where buffers are, one after the other, so that the pages that
// requests write to are not always the same.
const lanes, laneSize, readSize = 60, 96 << 10, 16 << 10

// add makes some reads available.
func (l *load) add(r *rig, n int) {
	q := r.queues[0]
	for range n {
		sector := l.rnd.Uint64N(2000)
		l.lane = (l.lane + 1) % lanes
		head, _ := q.Add(arena+l.lane*laneSize, 4096-headerSize, -1,
			virtiotest.Buf{Data: header(typeIn, sector)}, virtiotest.Buf{Room: readSize + 1})
		l.reads[head] = sector
	}
	q.Kick()
}

// finish waits for all, and checks them.
func (l *load) finish(r *rig, want []byte) {
	r.T.Helper()
	for len(l.reads) > 0 {
		head, _, data := r.queues[0].Wait()
		off := l.reads[head] * sectorSize
		delete(l.reads, head)
		if data[readSize] != statusOK || !bytes.Equal(data[:readSize], want[off:off+readSize]) {
			r.T.Fatalf("a read at %#x: status %d, or not what is there", off, data[readSize])
		}
	}
}

// TestNothingOfWhatADiskReadsIsLeftBehind: memory is copied to the other host
// while the disk reads into it; what was dirty at the end follows at once
// (precopy), or is fetched page by page by the device that runs there (hybrid).
func TestNothingOfWhatADiskReadsIsLeftBehind(t *testing.T) {
	for _, mode := range []string{"precopy", "hybrid"} {
		t.Run(mode, func(t *testing.T) {
			path, want := newImage(t, t.TempDir(), 2<<20)
			r := newRig(t, path, false, Options{Queues: 1}, 0)
			work := &load{rnd: rand.New(rand.NewPCG(3, 3)), reads: map[uint16]uint64{}}
			mem, block := virtiotest.NewMemory(t, ramSize)
			fetch := make(chan uint64, block.Pages())
			if err := block.Expect(func(page uint64) { fetch <- page }); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { close(fetch) })

			if err := r.block.StartDirtyLog(); err != nil {
				t.Fatal(err)
			}
			r.block.Dirty().SetRange(0, r.block.Pages())
			for range 5 {
				work.add(r, 6)
				for page, ok := r.block.Dirty().NextSet(0); ok; page, ok = r.block.Dirty().NextSet(page + 1) {
					r.block.Dirty().Clear(page)
					copyPage(t, r.block, block, page)
					block.MarkPresent(page, 1)
				}
				work.finish(r, want)
			}
			work.add(r, 12) // some are done here, the others there
			r.mmio.Device().Hold()
			state, err := r.mmio.Save()
			if err != nil {
				t.Fatal(err)
			}
			left := 0
			for page, ok := r.block.Dirty().NextSet(0); ok; page, ok = r.block.Dirty().NextSet(page + 1) {
				left++
				if mode == "precopy" {
					copyPage(t, r.block, block, page)
				} else if err := block.Discard(page, 1); err != nil {
					t.Fatal(err)
				}
			}
			if left == 0 {
				t.Error("nothing was dirty at the end")
			}
			go func(from *memslot.Block) {
				for page := range fetch {
					copyPage(t, from, block, page)
					block.MarkPresent(page, 1)
				}
			}(r.block)
			there, disk := newMMIO(t, path, false, Options{Queues: 1}, mem, r.IRQ)
			if err := there.Load(there.Version(), state); err != nil {
				t.Fatal(err)
			}
			r.Regs, r.mmio, r.disk, r.Mem, r.block = there, there, disk, mem, block
			there.Device().Release()
			for range 5 {
				work.finish(r, want)
				work.add(r, 12)
			}
			work.finish(r, want)
			t.Logf("%d pages were dirty at the end", left)
		})
	}
}
