package blk

import (
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"microvm/devices/virtio"
	"microvm/devices/virtio/virtiotest"
	"microvm/memslot"
)

const (
	ramSize = 8 << 20
	// arena is where the driver's buffers are.
	arena = 1 << 20

	ringFeatures = virtio.FeatureVersion1 | virtio.FeatureIndirect | virtio.FeatureEventIdx
)

// rig is a disk on a machine without vCPUs, and its driver.
type rig struct {
	*virtiotest.Driver
	path   string
	disk   *Disk
	mmio   *virtio.MMIO
	block  *memslot.Block
	queues []*virtiotest.Queue
}

// places are folders whose file systems differ in what they can do: the disk
// that tests are on, and tmpfs, which before Linux 6.6 has no O_DIRECT.
func places(t *testing.T, test func(t *testing.T, dir string)) {
	t.Run("disk", func(t *testing.T) { test(t, t.TempDir()) })
	t.Run("tmpfs", func(t *testing.T) {
		dir, err := os.MkdirTemp("/dev/shm", "microvm-test-")
		if err != nil {
			t.Skipf("%v; mount a tmpfs on /dev/shm to run this test", err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		test(t, dir)
	})
}

// newImage makes a file of random bytes, and returns them.
func newImage(t testing.TB, dir string, size int) (path string, content []byte) {
	t.Helper()
	content = make([]byte, size)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(content)
	path = filepath.Join(dir, "disk.img")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

// newMMIO is a held disk that ends with the test.
func newMMIO(t testing.TB, path string, readOnly bool, o Options, mem *memslot.Memory, irq virtiotest.IRQ) (*virtio.MMIO, *Disk) {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	image, err := OpenImage(path, readOnly)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := NewDisk(image, o)
	if err != nil {
		t.Fatal(err)
	}
	return virtiotest.NewMMIO(t, "blk0", disk, mem, irq, o.Log), disk
}

// newRig has a driver take all features but those in without.
func newRig(t testing.TB, path string, readOnly bool, o Options, without uint64) *rig {
	t.Helper()
	mem, block := virtiotest.NewMemory(t, ramSize)
	irq := virtiotest.NewIRQ()
	m, disk := newMMIO(t, path, readOnly, o, mem, irq)
	r := &rig{Driver: virtiotest.NewDriver(t, m, mem, 4096, irq), path: path, disk: disk, mmio: m, block: block}
	m.Device().Release()
	r.Init(r.Offered() &^ without)
	for i := range o.Queues {
		r.queues = append(r.queues, r.NewQueue(uint32(i), 64))
	}
	r.OK()
	return r
}

// header is a request's.
func header(kind uint32, sector uint64) []byte {
	b := binary.LittleEndian.AppendUint32(nil, kind)
	return binary.LittleEndian.AppendUint64(append(b, 0, 0, 0, 0), sector)
}

// extents are the ranges of a discard or write-zeroes.
func extents(ranges ...[3]uint64) (b []byte) {
	for _, r := range ranges {
		b = binary.LittleEndian.AppendUint64(b, r[0])
		b = binary.LittleEndian.AppendUint32(b, uint32(r[1]))
		b = binary.LittleEndian.AppendUint32(b, uint32(r[2]))
	}
	return b
}

// in reads n bytes.
func (r *rig) in(sector uint64, n int) (data []byte, status byte) {
	r.T.Helper()
	_, all := r.queues[0].Do(arena, virtiotest.Buf{Data: header(typeIn, sector)}, virtiotest.Buf{Room: n}, virtiotest.Buf{Room: 1})
	return all[:n], all[n]
}

// ask makes a request that is answered with a status alone.
func (r *rig) ask(kind uint32, sector uint64, data []byte) (status byte) {
	r.T.Helper()
	bufs := []virtiotest.Buf{{Data: header(kind, sector)}, {Data: data}, {Room: 1}}
	if data == nil {
		bufs = []virtiotest.Buf{bufs[0], bufs[2]}
	}
	_, all := r.queues[0].Do(arena, bufs...)
	return all[0]
}
