package memslot

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"microvm/kvm"
	"microvm/memslot/hugepool"
)

// resident counts a block's pages that take memory of the host's.
func resident(t *testing.T, b *Block) (n int) {
	t.Helper()
	vec := make([]byte, b.size/hostPage)
	if err := mincore(b.mapping.mem, vec); err != nil {
		t.Fatal(err)
	}
	for _, v := range vec {
		n += int(v & 1)
	}
	return n
}

// TestMemoryThatIsGivenBackIsTheHostsAgain, reads as zeros, and is sent as
// zeros where memory is being sent.
func TestMemoryThatIsGivenBackIsTheHostsAgain(t *testing.T) {
	const pages = 1024
	for _, backing := range []Backing{Anonymous, Memfd} {
		b := newBlock(t, pages, BlockOptions{Backing: backing})
		m := NewMemory(setterFunc(agreeable), 8)
		if err := errors.Join(m.Map(0, 0, b, 0, b.Size()/2, 0), m.Map(1, b.Size()/2, b, b.Size()/2, b.Size()/2, 0)); err != nil {
			t.Fatal(err)
		}
		if err := m.WriteAt(bytes.Repeat([]byte{7}, int(b.Size())), 0); err != nil {
			t.Fatal(err)
		}
		if n := resident(t, b); n != pages {
			t.Fatalf("%v: %d pages of %d are there", backing, n, pages)
		}
		if err := b.StartDirtyLog(); err != nil {
			t.Fatal(err)
		}
		// Of the first and the last page only a part, across two slots.
		given, err := m.GiveBack(10*hostPage+1, (pages-20)*hostPage)
		if err != nil || given != (pages-21)*hostPage {
			t.Errorf("%v: %d bytes, %v", backing, given, err)
		}
		if n := resident(t, b); n != 21 {
			t.Errorf("%v: %d pages are there, want 21", backing, n)
		}
		var want []uint64
		for page := uint64(11); page < pages-10; page++ {
			want = append(want, page)
		}
		if got := dirtyPages(b); !slices.Equal(got, want) {
			t.Errorf("%v: dirty are %v", backing, got)
		}
		p := make([]byte, b.Size())
		if err := m.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		inside := p[11*hostPage : (pages-10)*hostPage]
		if !bytes.Equal(inside, make([]byte, len(inside))) || p[11*hostPage-1] != 7 || p[(pages-10)*hostPage] != 7 {
			t.Errorf("%v: it reads otherwise than zeros there, or as zeros elsewhere", backing)
		}
	}
}

func TestWhatIsNoRAMIsNotGivenBack(t *testing.T) {
	m, low, _ := newMemory(t)
	if err := m.WriteAt(bytes.Repeat([]byte{7}, 0x3000), 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		gpa, n uint64
		want   error
	}{
		{0x5000, 0, nil},
		{0x1000, 0xfff, nil}, // no whole page
		{0x1000, 0x3000, ErrOutOfRange},
		{0x3000, 1, ErrOutOfRange},
		{0x1000, ^uint64(0), ErrOutOfRange},
		{^uint64(0), 2, ErrOutOfRange},
		{0x8000, 0x1000, ErrReadOnly},
	} {
		if given, err := m.GiveBack(c.gpa, c.n); given != 0 || !errors.Is(err, c.want) {
			t.Errorf("[%#x, +%#x): %d bytes, %v, want %v", c.gpa, c.n, given, err, c.want)
		}
	}
	p := make([]byte, 0x3000)
	if err := m.ReadAt(p, 0); err != nil || !bytes.Equal(p, bytes.Repeat([]byte{7}, 0x3000)) {
		t.Errorf("something was given back: %v", err)
	}
	if low.mapping.mem[3*hostPage] != 0 {
		t.Error("the read-only slot has changed")
	}
}

// TestNothingIsGivenBackWhilePagesAreMissing: the source would be asked for it
// again, and what it has is old.
func TestNothingIsGivenBackWhilePagesAreMissing(t *testing.T) {
	b := newBlock(t, 2, BlockOptions{})
	m := NewMemory(setterFunc(agreeable), 8)
	if err := m.Map(0, 0, b, 0, b.Size(), 0); err != nil {
		t.Fatal(err)
	}
	expect(t, b, func(uint64) { t.Error("a page was asked for") })
	arrive(b, 0, 7)
	if given, err := m.GiveBack(0, 2*hostPage); given != 0 || err != nil {
		t.Errorf("%d bytes, %v", given, err)
	}
	if b.mapping.mem[0] != 7 {
		t.Error("the page is gone")
	}
	arrive(b, 1, 7)
	if err := b.Complete(); err != nil {
		t.Fatal(err)
	}
	if given, err := m.GiveBack(0, 2*hostPage); given != 2*hostPage || err != nil || b.mapping.mem[0] != 0 {
		t.Errorf("when all are there: %d bytes, %v", given, err)
	}
}

// TestHugePagesAreKept: another process might take them from the pool.
func TestHugePagesAreKept(t *testing.T) {
	hugepool.Need(t, 2)
	b, err := NewBlock("ram", 2*hugePage, BlockOptions{Backing: Hugetlb})
	if err != nil {
		t.Fatal(err)
	}
	m := NewMemory(setterFunc(agreeable), 8)
	if err := m.Map(0, 0, b, 0, b.Size(), kvm.MemLogDirtyPages); err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	b.mapping.mem[0] = 7
	if given, err := m.GiveBack(0, 2*hugePage); given != 0 || err != nil || b.mapping.mem[0] != 7 {
		t.Errorf("%d bytes, %v", given, err)
	}
}
