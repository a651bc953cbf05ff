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

// TestPagesAreAskedForBeforeTheyAreNeeded: all of them, without waiting.
func TestPagesAreAskedForBeforeTheyAreNeeded(t *testing.T) {
	const pages = 2 * askWindow
	b := newBlock(t, pages, BlockOptions{})
	m := NewMemory(setterFunc(agreeable), 8)
	if err := errors.Join(m.Map(0, 0, b, hostPage, 2*hostPage, 0), m.Map(1, 2*hostPage, b, 3*hostPage, (pages-3)*hostPage, 0)); err != nil {
		t.Fatal(err)
	}
	if !m.Request(0, pages*hostPage) {
		t.Error("no page is missing, and one is said to be")
	}
	p := newPager(pages)
	expect(t, b, p.fetch)
	arrive(b, 2, 2)
	if m.Request(hostPage-1, 3*hostPage) {
		t.Error("pages 1, 3 and 4 are missing, and none is said to be")
	}
	if want := []uint64{1, 3, 4}; !slices.Equal(p.asked, want) {
		t.Errorf("pages %v were asked for, want %v", p.asked, want)
	}
	if !m.Request(hostPage, hostPage) || !m.Request(1<<40, 8) {
		t.Error("what is here, or no RAM, is said to be missing")
	}
	// A guest that names all of its memory does not have it all fetched at once.
	p.asked = nil
	m.Request(2*hostPage, (pages-3)*hostPage)
	if len(p.asked) > askWindow {
		t.Errorf("%d pages were asked for", len(p.asked))
	}
	here := make(chan error)
	go func() { here <- m.Await(hostPage-1, 3*hostPage) }()
	arrive(b, 4, 4)
	arrive(b, 1, 1)
	arrive(b, 3, 3)
	if err := <-here; err != nil {
		t.Error(err)
	}
	b.Fail(errors.New("connection lost"))
	if err := m.Await(4*hostPage, hostPage); err == nil {
		t.Error("a page that will not come has come")
	}
}
