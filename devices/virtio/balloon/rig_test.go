package balloon

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"testing"

	"microvm/devices/virtio"
	"microvm/devices/virtio/virtiotest"
	"microvm/memslot"
)

const (
	ramSize = 16 << 20
	// arena is where the driver's buffers are, store where the pages are that
	// it can do without.
	arena = 1 << 20
	store = 4 << 20
)

// rig is a balloon on a machine without vCPUs, and its driver.
type rig struct {
	*virtiotest.Driver
	balloon *Balloon
	mmio    *virtio.MMIO
	block   *memslot.Block
	queues  []*virtiotest.Queue
}

// newMMIO is a held balloon that ends with the test.
func newMMIO(t testing.TB, o Options, mem *memslot.Memory, irq virtiotest.IRQ) (*virtio.MMIO, *Balloon) {
	t.Helper()
	b, err := New(mem, o)
	if err != nil {
		t.Fatal(err)
	}
	return virtiotest.NewMMIO(t, "balloon0", b, mem, irq, slog.New(slog.DiscardHandler)), b
}

// newRig has a driver take all features but those in without.
func newRig(t testing.TB, o Options, without uint64) *rig {
	t.Helper()
	mem, block := virtiotest.NewMemory(t, ramSize)
	irq := virtiotest.NewIRQ()
	m, b := newMMIO(t, o, mem, irq)
	r := &rig{Driver: virtiotest.NewDriver(t, m, mem, 4096, irq), balloon: b, mmio: m, block: block}
	m.Device().Release()
	r.start(r.Offered() &^ without)
	return r
}

// start resets the device and brings it up.
func (r *rig) start(features uint64) {
	r.T.Helper()
	r.Init(features)
	r.queues = nil
	n := uint32(2)
	for _, f := range []uint64{featureStats, featureReporting} {
		if features&f != 0 {
			n++
		}
	}
	for i := range n {
		r.queues = append(r.queues, r.NewQueue(i, 16))
	}
	r.OK()
}

// fill writes something to n pages from a page frame number on.
func (r *rig) fill(pfn uint64, n int) {
	r.T.Helper()
	if err := r.Mem.WriteAt(bytes.Repeat([]byte{7}, n*PageSize), pfn*PageSize); err != nil {
		r.T.Fatal(err)
	}
}

// gone tells whether a page is zeros, as one that was given back is; else it is
// as fill left it.
func (r *rig) gone(pfn uint64) bool {
	r.T.Helper()
	p := make([]byte, PageSize)
	if err := r.Mem.ReadAt(p, pfn*PageSize); err != nil {
		r.T.Fatal(err)
	}
	if bytes.Equal(p, make([]byte, PageSize)) {
		return true
	}
	if !bytes.Equal(p, bytes.Repeat([]byte{7}, PageSize)) {
		r.T.Fatalf("page %#x is neither as it was nor zeros", pfn)
	}
	return false
}

// pfns is a request's list.
func pfns(list ...uint64) (b []byte) {
	for _, v := range list {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	return b
}

// figures is what a driver puts into a buffer of statistics.
func figures(pairs ...uint64) (b []byte) {
	for i := 0; i < len(pairs); i += 2 {
		b = binary.LittleEndian.AppendUint16(b, uint16(pairs[i]))
		b = binary.LittleEndian.AppendUint64(b, pairs[i+1])
	}
	return b
}
