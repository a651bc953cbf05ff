package memslot

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestVectorsAreTheMemoryItself(t *testing.T) {
	m, low, high := newMemory(t)
	if !m.Whole() {
		t.Error("no page is missing, and the memory is said not to be whole")
	}
	vectors, err := m.Vectors(nil, 0x1100, 0x1000, true)
	if err != nil {
		t.Fatal(err)
	}
	want := []unix.Iovec{
		{Base: &low.mapping.mem[0x1100], Len: 0xf00},
		{Base: &high.mapping.mem[hostPage], Len: 0x100},
	}
	if !slices.Equal(vectors, want) {
		t.Errorf("%v, want %v", vectors, want)
	}
	if err := errors.Join(low.StartDirtyLog(), high.StartDirtyLog()); err != nil {
		t.Fatal(err)
	}
	m.MarkDirty(0x1100, 0x1000)
	if l, h := dirtyPages(low), dirtyPages(high); !slices.Equal(l, []uint64{1}) || !slices.Equal(h, []uint64{1}) {
		t.Errorf("dirty are pages %v of the one block and %v of the other, want page 1 of each", l, h)
	}
}

func TestVectorsOfNoRAMAreRefused(t *testing.T) {
	m, _, _ := newMemory(t)
	for _, c := range []struct {
		gpa, n uint64
		write  bool
		want   error
	}{
		{0, 0x3000, true, nil},
		{0x5000, 0, true, nil},
		{0x2fff, 2, false, ErrOutOfRange},
		{0x3000, 1, false, ErrOutOfRange},
		{0x1000, ^uint64(0), false, ErrOutOfRange},
		{^uint64(0), 2, false, ErrOutOfRange},
		{0x8000, 8, false, nil},
		{0x8000, 8, true, ErrReadOnly},
	} {
		before := []unix.Iovec{{Len: 77}}
		vectors, err := m.Vectors(before, c.gpa, c.n, c.write)
		if !errors.Is(err, c.want) || vectors[0].Len != 77 || err != nil && len(vectors) != 1 {
			t.Errorf("[%#x, +%#x) for writing %t: %v, %v, want %v", c.gpa, c.n, c.write, vectors, err, c.want)
		}
	}
}

// TestVectorsWaitForMissingPages: the kernel must not be sent to a page that
// the pager has yet to bring.
func TestVectorsWaitForMissingPages(t *testing.T) {
	b := newBlock(t, 4, BlockOptions{})
	m := NewMemory(setterFunc(agreeable), 8)
	if err := m.Map(0, 0, b, 0, b.Size(), 0); err != nil {
		t.Fatal(err)
	}
	p := newPager(4)
	expect(t, b, p.fetch)
	if m.Whole() {
		t.Error("every page is missing, and the memory is said to be whole")
	}
	here := make(chan [2]byte)
	go func() {
		if _, err := m.Vectors(nil, 1*hostPage, 2*hostPage, false); err != nil {
			t.Error(err)
		}
		here <- [2]byte{b.mapping.mem[hostPage], b.mapping.mem[2*hostPage]}
	}()
	<-p.more // both are asked for before it waits for either
	<-p.more
	select {
	case <-here:
		t.Fatal("it did not wait")
	default:
	}
	arrive(b, 2, 2)
	arrive(b, 1, 1)
	if got := <-here; got != [2]byte{1, 2} {
		t.Errorf("the pages begin with %v: they had not come", got)
	}
	if m.Whole() {
		t.Error("two pages are missing, and the memory is said to be whole")
	}
	b.Fail(errors.New("connection lost"))
	if _, err := m.Vectors(nil, 3*hostPage, 1, true); err == nil {
		t.Error("a page that will not come was given to the kernel")
	}
}
