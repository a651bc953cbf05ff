package memslot

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"microvm/memslot/hugepool"
)

// Room is to say what NewBlock would, and to take nothing.
func TestRoomAgreesWithWhatCanBeMapped(t *testing.T) {
	hugepool.Need(t, 4)
	total, free := HugePages()
	if total < 4 || free > total {
		t.Errorf("the pool has %d pages, %d free", total, free)
	}
	for _, c := range []struct {
		kind Backing
		size uint64
		ok   bool
	}{
		{Anonymous, 64 << 20, true},
		{Anonymous, 1 << 46, false},
		{Memfd, 64 << 20, true},
		{Hugetlb, 2 * hugePage, true},
		{Hugetlb, (total + 1<<20) * hugePage, false},
	} {
		err := Room(c.size, c.kind)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, unix.ENOMEM) {
			t.Errorf("%v of %d bytes: %v", c.kind, c.size, err)
		}
		if err != nil && c.kind == Hugetlb && !strings.Contains(err.Error(), "sysctl vm.nr_hugepages=") {
			t.Errorf("without the remedy: %v", err)
		}
		b, blockErr := NewBlock("b", c.size, BlockOptions{Backing: c.kind})
		if blockErr == nil {
			blockErr = b.Close()
		}
		if (err == nil) != (blockErr == nil) {
			t.Errorf("%v of %d bytes: Room says %v, NewBlock %v", c.kind, c.size, err, blockErr)
		}
	}
}
