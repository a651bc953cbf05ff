package blk

import (
	"bytes"
	"encoding/binary"
	"os"
	"strings"
	"testing"

	"microvm/devices/virtio/virtiotest"
)

// TestDiskGoesOnWhereItMoves: the driver works on, while the disk is held,
// saved, given up, taken over and released by one process after the other.
func TestDiskGoesOnWhereItMoves(t *testing.T) {
	places(t, func(t *testing.T, dir string) {
		path, want := newImage(t, dir, 256*sectorSize*16)
		r := newRig(t, path, false, Options{Queues: 3}, 0)
		if err := r.disk.Image().Lock(); err != nil {
			t.Fatal(err)
		}
		for range 8 {
			churn(t, r, want, 6)
			// One that is made available and taken by nobody here.
			r.mmio.Device().Hold()
			q := r.queues[1]
			q.Add(arena, 0, -1, virtiotest.Buf{Data: header(typeIn, 77)}, virtiotest.Buf{Room: 4097})
			q.Kick()
			state, err := r.mmio.Save()
			if err != nil {
				t.Fatal(err)
			}
			there, disk := newMMIO(t, path, false, Options{Queues: 3}, r.Mem, r.IRQ)
			if err := there.Load(there.Version(), state); err != nil {
				t.Fatal(err)
			}
			if disk.Image().Lock() == nil {
				t.Fatal("two own the disk")
			}
			if err := r.disk.Image().Unlock(); err != nil {
				t.Fatal(err)
			}
			if err := disk.Image().Lock(); err != nil {
				t.Fatal(err)
			}
			r.Regs, r.mmio, r.disk = there, there, disk
			there.Device().Release()
			if _, _, data := q.Wait(); data[4096] != statusOK || !bytes.Equal(data[:4096], want[77*512:77*512+4096]) {
				t.Fatalf("the request that moved: status %d", data[4096])
			}
		}
	})
}

func TestSmallerImageIsRefusedWhereADiskArrives(t *testing.T) {
	path, _ := newImage(t, t.TempDir(), 1<<20)
	r := newRig(t, path, false, Options{Queues: 1}, 0)
	r.mmio.Device().Hold()
	state, err := r.mmio.Save()
	if err != nil {
		t.Fatal(err)
	}
	load := func(size int64) (*Disk, error) {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		there, disk := newMMIO(t, path, false, Options{Queues: 1}, r.Mem, r.IRQ)
		return disk, there.Load(there.Version(), state)
	}
	if _, err := load(1<<20 - 512); err == nil || !strings.Contains(err.Error(), "2047 sectors") || !strings.Contains(err.Error(), path) {
		t.Errorf("a smaller one: %v", err)
	}
	disk, err := load(2 << 20)
	if err != nil || disk.Bytes() != 1<<20 {
		t.Errorf("a larger one: %v, %d bytes", err, disk.Bytes())
	}
	if grown, err := disk.Grow(); !grown || err != nil || disk.Bytes() != 2<<20 {
		t.Errorf("it does not grow: %v, %d bytes", err, disk.Bytes())
	}
}

// TestWaitingRequestHoldsUpNoOther: while a buffer is still at a migration's
// source, the guest's other requests are done.
func TestWaitingRequestHoldsUpNoOther(t *testing.T) {
	path, want := newImage(t, t.TempDir(), 1<<20)
	r := newRig(t, path, false, Options{Queues: 1}, 0)
	const far = 6 << 20
	asked := r.arrive(far >> 12)
	q := r.queues[0]
	first, _ := q.Add(arena, 0, -1, virtiotest.Buf{Data: header(typeIn, 0)}, virtiotest.Buf{Room: 512, At: far}, virtiotest.Buf{Room: 1})
	q.Kick()
	if page := <-asked; page != far>>12 {
		t.Errorf("page %#x was asked for", page)
	}
	for i := range uint64(40) {
		q.Add(arena+0x1000, 0, -1, virtiotest.Buf{Data: header(typeIn, i)}, virtiotest.Buf{Room: 513})
		q.Kick()
		if head, _, data := q.Wait(); head == first || data[512] != statusOK || !bytes.Equal(data[:512], want[i*512:i*512+512]) {
			t.Fatalf("request %d: head %d, status %d", i, head, data[512])
		}
	}
	r.block.MarkPresent(far>>12, 1)
	if head, written, _ := q.Wait(); head != first || written != 513 {
		t.Errorf("head %d, %d bytes", head, written)
	}
	got := make([]byte, 512)
	if err := r.Mem.ReadAt(got, far); err != nil || !bytes.Equal(got, want[:512]) {
		t.Errorf("%v: it is not what was read", err)
	}
}

// arrive makes a rig's device as one whose memory is on its way: pages that are
// not among absent are here. It gives what is asked for.
func (r *rig) arrive(absent ...uint64) (asked chan uint64) {
	r.T.Helper()
	r.mmio.Device().Hold()
	asked = make(chan uint64, r.block.Pages())
	if err := r.block.Expect(func(page uint64) { asked <- page }); err != nil {
		r.T.Fatal(err)
	}
	here := uint64(0)
	for _, page := range absent {
		r.block.MarkPresent(here, page-here)
		here = page + 1
	}
	r.block.MarkPresent(here, r.block.Pages()-here)
	// What Expect gave back is zeros, the queue's areas too: it is set up anew.
	r.mmio.Device().Release()
	r.Init(r.Features)
	r.queues[0] = r.NewQueue(0, 64)
	r.OK()
	return asked
}

// TestManyWaitingRequestsHoldUpNoOther: more of them than there are goroutines
// to do requests.
func TestManyWaitingRequestsHoldUpNoOther(t *testing.T) {
	path, want := newImage(t, t.TempDir(), 1<<20)
	r := newRig(t, path, false, Options{Queues: 1}, 0)
	const waiting, far = workers + 4, 6 << 20 >> 12
	var absent []uint64
	for i := range uint64(waiting) {
		absent = append(absent, far+i)
	}
	asked := r.arrive(absent...)
	q := r.queues[0]
	sectors := map[uint16]uint64{}
	for i, page := range absent {
		head, _ := q.Add(arena+uint64(i)*0x1000, 0, -1, virtiotest.Buf{Data: header(typeIn, uint64(i))},
			virtiotest.Buf{Room: 512, At: page << 12}, virtiotest.Buf{Room: 1})
		sectors[head] = uint64(i)
		q.Kick()
		if got := <-asked; got != page {
			t.Errorf("page %#x was asked for, want %#x", got, page)
		}
	}
	q.Add(arena+waiting*0x1000, 0, -1, virtiotest.Buf{Data: header(typeIn, 77)}, virtiotest.Buf{Room: 513})
	q.Kick()
	if _, _, data := q.Wait(); data[512] != statusOK || !bytes.Equal(data[:512], want[77*512:78*512]) {
		t.Errorf("status %d", data[512])
	}
	r.block.MarkPresent(far, waiting)
	for range absent {
		head, _, data := q.Wait()
		if i := sectors[head]; data[512] != statusOK || !bytes.Equal(data[:512], want[i*512:i*512+512]) {
			t.Errorf("request %d: status %d, or not what was read", i, data[512])
		}
	}
}

// TestRequestAsksForAllItsPagesAtOnce: a request of many buffers costs one
// round trip to the source, not one for each.
func TestRequestAsksForAllItsPagesAtOnce(t *testing.T) {
	path, want := newImage(t, t.TempDir(), 1<<20)
	r := newRig(t, path, false, Options{Queues: 1}, 0)
	const buffers, far = 16, 6 << 20 >> 12
	var absent []uint64
	bufs := []virtiotest.Buf{{Data: header(typeIn, 0)}}
	for i := range uint64(buffers) {
		absent = append(absent, far+2*i)
		bufs = append(bufs, virtiotest.Buf{Room: 512, At: absent[i] << 12})
	}
	asked := r.arrive(absent...)
	q := r.queues[0]
	q.Add(arena, 0, -1, append(bufs, virtiotest.Buf{Room: 1})...)
	q.Kick()
	for range absent {
		<-asked // none has come yet
	}
	for _, page := range absent {
		r.block.MarkPresent(page, 1)
	}
	if _, _, data := q.Wait(); !bytes.Equal(data, append(want[:buffers*512:buffers*512], statusOK)) {
		t.Error("it is not what was read")
	}
}

// TestReadsAreInTheDirtyLog: what a disk has put into guest memory by a system
// call has to be sent again.
func TestReadsAreInTheDirtyLog(t *testing.T) {
	path, _ := newImage(t, t.TempDir(), 1<<20)
	r := newRig(t, path, false, Options{Queues: 1}, 0)
	if err := r.block.StartDirtyLog(); err != nil {
		t.Fatal(err)
	}
	if _, status := r.in(0, 16<<10); status != statusOK {
		t.Fatal(status)
	}
	for page := range uint64(4) {
		if !r.block.Dirty().Test(arena>>12 + page) {
			t.Errorf("page %d of the buffer is not marked", page)
		}
	}
}

// FuzzHostileDriver has a disk do what a guest's memory says, whatever that
// is. Nothing but the disk may change: not its size, and nothing on it past
// what a request could name.
func FuzzHostileDriver(f *testing.F) {
	step := func(at uint16, v ...uint64) (b []byte) {
		for i, v := range v {
			b = binary.LittleEndian.AppendUint16(b, at+uint16(8*i))
			b = binary.LittleEndian.AppendUint64(b, v)
		}
		return b
	}
	request := func(kind, sector, data uint64) []byte {
		return bytes.Join([][]byte{
			step(0x8000, kind, sector, 1, 1<<32|8),
			step(0x1000, 0x8000, 16|1<<32|1<<48, 0x9000, data|1<<32|2<<48, 0xA000, 1|2<<32), step(0x1400, 1<<16),
		}, nil)
	}
	f.Add(request(typeIn, 0, 512|2<<32))
	f.Add(request(typeOut, 1, 4096))
	f.Add(request(typeDiscard, 0, 16))
	f.Add(request(typeWriteZeroes, 0, 32))
	f.Add(request(typeGetID, 0, 20|2<<32))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, steps []byte) {
		path, _ := newImage(t, dir, 64<<10)
		r := newRig(t, path, false, Options{Queues: 1}, 0)
		for len(steps) >= 10 && len(steps) < 4096 {
			at, v := binary.LittleEndian.Uint16(steps), steps[2:10]
			if at < 0x1000 { // a register of the configuration or so
				r.Set(uint64(at), uint32(v[0]))
			} else if err := r.Mem.WriteAt(v, uint64(at)); err != nil {
				t.Fatal(err)
			}
			steps = steps[10:]
			r.Set(0x50, 0)
		}
		r.mmio.Device().Hold()
		r.mmio.Device().Release()
		r.Init(r.Offered())
		q := r.NewQueue(0, 8)
		r.queues[0] = q
		r.OK()
		if _, status := r.in(127, 512); status != statusOK {
			t.Errorf("after a reset it reads with status %d", status)
		}
		if info, err := os.Stat(path); err != nil || info.Size() != 64<<10 {
			t.Errorf("the image has %d bytes: %v", info.Size(), err)
		}
	})
}
