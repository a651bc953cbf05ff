package memslot

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Room tells whether a block of size bytes could be made, as far as that can be
// told without taking anything from others: the error is what NewBlock's would
// be. Anonymous and Memfd memory is mapped and unmapped again, which shows the
// limits of the process and how the kernel commits memory. Of Hugetlb memory,
// which a mapping would take from the pool, the pages are counted.
func Room(size uint64, kind Backing) error {
	if kind == Hugetlb {
		if need, _, free := hugePool(size); need > free {
			return fmt.Errorf("RAM of %d MiB, %v: %w", size>>20, kind, explain(unix.ENOMEM, size, kind))
		}
		return nil
	}
	m, err := newMapping("room", size, kind)
	if err != nil {
		return fmt.Errorf("RAM of %d MiB, %v: %w", size>>20, kind, err)
	}
	return m.close()
}

// HugePages says how many 2 MiB pages the host's pool has, and how many of them
// can be had.
func HugePages() (total, free uint64) {
	_, total, free = hugePool(0)
	return total, free
}

// hugePool says how many 2 MiB pages size bytes need, how many the pool has, and
// how many of them are neither in use nor promised.
func hugePool(size uint64) (need, total, free uint64) {
	const pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/"
	free = readCount(pool + "free_hugepages")
	return size / hugePage, readCount(pool + "nr_hugepages"), free - min(readCount(pool+"resv_hugepages"), free)
}
