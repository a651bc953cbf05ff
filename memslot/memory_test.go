package memslot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"microvm/kvm"
)

// newMemory has two blocks in three slots, with a gap:
//
//	0x0000  slot 0  low, pages 0 and 1
//	0x2000  slot 1  high, page 1
//	0x3000  nothing
//	0x8000  slot 2  low, page 3, read-only
func newMemory(t *testing.T) (m *Memory, low, high *Block) {
	t.Helper()
	low, high = newBlock(t, 4, BlockOptions{}), newBlock(t, 2, BlockOptions{Backing: Memfd})
	m = NewMemory(setterFunc(agreeable), 8)
	for _, err := range []error{
		m.Map(0, 0, low, 0, 2*hostPage, 0),
		m.Map(1, 2*hostPage, high, hostPage, hostPage, 0),
		m.Map(2, 8*hostPage, low, 3*hostPage, hostPage, kvm.MemReadonly),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return m, low, high
}

func TestMemoryAccessCrossesSlots(t *testing.T) {
	m, low, high := newMemory(t)
	if m.Size() != 4*hostPage {
		t.Errorf("size %#x", m.Size())
	}
	want := bytes.Repeat([]byte("guest RAM"), 500)
	if err := m.WriteAt(want, 0x1100); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if err := m.ReadAt(got, 0x1100); err != nil || !bytes.Equal(got, want) {
		t.Errorf("reads otherwise than written: %v", err)
	}
	inLow, err := low.View(0x1100, 0xf00)
	if err != nil || !bytes.Equal(inLow, want[:0xf00]) {
		t.Errorf("the first part is not in the first block: %v", err)
	}
	inHigh, err := high.View(hostPage, uint64(len(want))-0xf00)
	if err != nil || !bytes.Equal(inHigh, want[0xf00:]) {
		t.Errorf("the second part is not in the second block: %v", err)
	}
}

func TestMemoryBounds(t *testing.T) {
	m, low, _ := newMemory(t)
	for _, c := range []struct {
		gpa  uint64
		n    int
		want error
	}{
		{0, 0x3000, nil},
		{0x2fff, 1, nil},
		{0x2fff, 2, ErrOutOfRange},
		{0x3000, 1, ErrOutOfRange},
		{0x7fff, 2, ErrOutOfRange},
		{0x8fff, 2, ErrOutOfRange},
		{^uint64(0), 1, ErrOutOfRange},
		{^uint64(0), 2, ErrOutOfRange},
		{1 << 63, 8, ErrOutOfRange},
		{0x5000, 0, nil},
	} {
		p := bytes.Repeat([]byte{7}, c.n)
		if err := m.ReadAt(p, c.gpa); !errors.Is(err, c.want) {
			t.Errorf("read of %d bytes at %#x: %v, want %v", c.n, c.gpa, err, c.want)
		} else if err != nil && !bytes.Equal(p, bytes.Repeat([]byte{7}, c.n)) {
			t.Errorf("refused read of %d bytes at %#x changed the buffer", c.n, c.gpa)
		}
	}
	if err := m.WriteAt([]byte{1, 2, 3}, 0x2ffe); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("write over the end: %v", err)
	}
	p := make([]byte, 2)
	if err := m.ReadAt(p, 0x2ffe); err != nil || p[0] != 0 {
		t.Errorf("a refused write left %v, %v", p, err)
	}
	if err := m.WriteAt([]byte{1}, 0x8000); !errors.Is(err, ErrReadOnly) {
		t.Errorf("write to the read-only slot: %v", err)
	}
	if v, err := low.View(3*hostPage, 1); err != nil || v[0] != 0 {
		t.Errorf("a refused write changed read-only memory: %v, %v", v, err)
	}
	if err := m.ReadAt(p, 0x8000); err != nil {
		t.Errorf("read of the read-only slot: %v", err)
	}
}

func TestMapRefuses(t *testing.T) {
	m, low, _ := newMemory(t)
	for _, c := range []struct {
		name           string
		gpa, off, size uint64
		want           error
	}{
		{"past the block's end", 1 << 20, 0, 5 * hostPage, ErrOutOfRange},
		{"offset past the block's end", 1 << 20, 4 * hostPage, hostPage, ErrOutOfRange},
		{"offset that wraps", 1 << 20, ^uint64(0) - 0xfff, 2 * hostPage, ErrOutOfRange},
		{"offset inside a page", 1 << 20, 8, hostPage, ErrMisaligned},
		{"address inside a page", 1<<20 + 8, 0, hostPage, ErrMisaligned},
		{"overlap", hostPage, 0, hostPage, ErrOverlap},
	} {
		if err := m.Map(5, c.gpa, low, c.off, c.size, 0); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if m.Size() != 4*hostPage {
		t.Errorf("size %#x after refusals", m.Size())
	}
}

func TestMemoryKeepsTrackOfBlocks(t *testing.T) {
	m, low, high := newMemory(t)
	check := func(want ...*Block) {
		t.Helper()
		if got := m.Blocks(); !slices.Equal(got, want) {
			t.Errorf("blocks %v, want %v", got, want)
		}
	}
	check(low, high)
	if err := m.Unmap(1); err != nil {
		t.Fatal(err)
	}
	check(low)
	if err := m.Unmap(0); err != nil {
		t.Fatal(err)
	}
	check(low) // slot 2 has a part of it
	if err := m.Move(2, 0); err != nil {
		t.Fatal(err)
	}
	if err := m.SetFlags(2, kvm.MemReadonly|kvm.MemLogDirtyPages); err != nil {
		t.Fatal(err)
	}
	if err := m.ReadAt(make([]byte, hostPage), 0); err != nil {
		t.Errorf("read of the moved slot: %v", err)
	}
	if err := m.Unmap(2); err != nil {
		t.Fatal(err)
	}
	check()
	if err := m.Unmap(2); !errors.Is(err, ErrNoSlot) {
		t.Errorf("second unmap: %v", err)
	}
}

// TestMemoryWaitsOnlyForWhatIsMissing reads over two slots of which one is
// complete.
func TestMemoryWaitsOnlyForWhatIsMissing(t *testing.T) {
	m, low, _ := newMemory(t)
	p := newPager(4)
	expect(t, low, p.fetch)
	if err := m.ReadAt(make([]byte, 8), 0x2000); err != nil {
		t.Error(err)
	}
	done := make(chan error, 1)
	buf := make([]byte, 16)
	go func() { done <- m.ReadAt(buf, 0x1ff8) }()
	if page := <-p.more; page != 1 {
		t.Errorf("asked for page %d, want 1", page)
	}
	arrive(low, 1, 0xab)
	if err := <-done; err != nil || buf[7] != 0xab || buf[8] != 0 {
		t.Errorf("read %x, %v", buf, err)
	}
}

// TestIndexIsNeverSeenHalfWritten: 2, 4 and 8 bytes are one access, whoever
// else is at it. A virtqueue's index that goes from 0x00ff to 0x0100 must not
// be read as 0x01ff.
func TestIndexIsNeverSeenHalfWritten(t *testing.T) {
	m, _, _ := newMemory(t)
	for _, size := range []int{2, 4, 8} {
		var values [2][8]byte
		binary.LittleEndian.PutUint64(values[0][:], 0x00ff00ff_00ff00ff)
		binary.LittleEndian.PutUint64(values[1][:], 0x01000100_01000100)
		var stop atomic.Bool
		if err := m.WriteAt(values[0][:size], 0x100); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := 0; !stop.Load(); i++ {
				if err := m.WriteAt(values[i%2][:size], 0x100); err != nil {
					t.Error(err)
				}
			}
		}()
		got := make([]byte, size)
		for range 300_000 {
			if err := m.ReadAt(got, 0x100); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, values[0][:size]) && !bytes.Equal(got, values[1][:size]) {
				t.Errorf("%d bytes: read %x", size, got)
				break
			}
		}
		stop.Store(true)
		<-done
	}
}

func TestAccessDoesNotAllocate(t *testing.T) {
	m, low, _ := newMemory(t)
	if err := low.StartDirtyLog(); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 16)
	if n := testing.AllocsPerRun(100, func() {
		if m.ReadAt(p, 0x10) != nil || m.WriteAt(p, 0x10) != nil {
			t.Error("access failed")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
