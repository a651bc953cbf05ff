package memslot

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func newBlock(t testing.TB, pages uint64, o BlockOptions) *Block {
	t.Helper()
	size := hostPage
	if o.Backing == Hugetlb {
		size = hugePage
	}
	b, err := NewBlock("ram", pages*size, o)
	if o.Backing == Hugetlb && errors.Is(err, unix.ENOMEM) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func eachBacking(t *testing.T, f func(t *testing.T, o BlockOptions)) {
	for _, k := range []Backing{Anonymous, Memfd, Hugetlb} {
		t.Run(k.String(), func(t *testing.T) { f(t, BlockOptions{Backing: k}) })
	}
}

func TestNewBlockRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		size uint64
		o    BlockOptions
		want error
	}{
		{"empty", 0, BlockOptions{}, ErrOutOfRange},
		{"too large for an address", 1 << 63, BlockOptions{}, ErrOutOfRange},
		{"half a page", hostPage / 2, BlockOptions{}, ErrMisaligned},
		{"half a huge page", hugePage / 2, BlockOptions{Backing: Hugetlb}, ErrMisaligned},
		{"past the address space", 1 << 50, BlockOptions{}, unix.ENOMEM},
	} {
		if b, err := NewBlock("ram", c.size, c.o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v, want %v", c.name, b, err, c.want)
		}
	}
	for _, o := range []BlockOptions{{PageSize: hugePage}, {Backing: Hugetlb, PageSize: hostPage}, {Backing: 7}} {
		if _, err := NewBlock("ram", hugePage, o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

// TestHugetlbSaysWhatIsShort: who asks for huge pages that the host hasn't
// reserved learns how many, and which sysctl.
func TestHugetlbSaysWhatIsShort(t *testing.T) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	size := 2 * (info.Totalram*uint64(info.Unit)/hugePage + 1) * hugePage
	_, err := NewBlock("ram", size, BlockOptions{Backing: Hugetlb})
	if !errors.Is(err, unix.ENOMEM) {
		t.Fatalf("twice the host's memory in huge pages: %v", err)
	}
	for _, want := range []string{"sysctl vm.nr_hugepages=", strconv.FormatUint(size/hugePage, 10), "2 MiB"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
}

func TestBlockIsMappedAsAsked(t *testing.T) {
	eachBacking(t, func(t *testing.T, o BlockOptions) {
		b := newBlock(t, 4, o)
		if b.Addr()%hugePage != 0 {
			t.Errorf("host address %#x is not aligned to 2 MiB", b.Addr())
		}
		if b.Pages() != 4 || b.Size() != 4*b.PageSize() || b.Backing() != o.Backing || b.Name() != "ram" {
			t.Errorf("%d pages of %d, %d bytes, %v, %q", b.Pages(), b.PageSize(), b.Size(), b.Backing(), b.Name())
		}
		want := map[Backing]string{Anonymous: "dc dd hg", Memfd: "dc dd sh", Hugetlb: "dc dd ht"}[o.Backing]
		flags := vmFlags(t, b.Addr())
		for _, f := range strings.Fields(want) {
			if !strings.Contains(flags+" ", " "+f+" ") {
				t.Errorf("VmFlags%s lack %s", flags, f)
			}
		}
		v, err := b.View(0, b.Size())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(v, make([]byte, len(v))) {
			t.Error("new RAM is not zero")
		}
		if err := b.write([]byte{1, 2, 3}, b.Size()-3); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(v[len(v)-3:], []byte{1, 2, 3}) {
			t.Error("the view does not show what was written")
		}
	})
}

// vmFlags finds the flags of the mapping at addr in smaps: dc and dd stand for
// MADV_DONTFORK and MADV_DONTDUMP, hg for MADV_HUGEPAGE, ht for hugetlb.
func vmFlags(t *testing.T, addr uintptr) string {
	t.Helper()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(smaps), "\n"+strconv.FormatUint(uint64(addr), 16)+"-")
	if !ok {
		t.Fatalf("no mapping at %#x", addr)
	}
	_, flags, _ := strings.Cut(after, "VmFlags:")
	flags, _, _ = strings.Cut(flags, "\n")
	return flags
}

func TestViewBounds(t *testing.T) {
	b := newBlock(t, 2, BlockOptions{})
	for _, c := range []struct{ off, n uint64 }{{0, b.Size() + 1}, {b.Size(), 1}, {1, b.Size()}, {^uint64(0), 2}, {8, ^uint64(0)}} {
		if _, err := b.View(c.off, c.n); !errors.Is(err, ErrOutOfRange) {
			t.Errorf("view of [%#x, +%#x): %v", c.off, c.n, err)
		}
	}
	v, err := b.View(hostPage, hostPage)
	if err != nil {
		t.Fatal(err)
	}
	if cap(v) != int(hostPage) {
		t.Errorf("the view can be grown to %d bytes", cap(v))
	}
}

func TestCloseGivesErrorsNotFaults(t *testing.T) {
	b := newBlock(t, 2, BlockOptions{})
	m := NewMemory(setterFunc(agreeable), 4)
	if err := m.Map(0, 0, b, 0, b.Size(), 0); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.ReadAt(make([]byte, 8), 0); !errors.Is(err, ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if _, err := b.View(0, 1); err == nil {
		t.Error("view of a closed block")
	}
}
