package uffd

import (
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// zeroLength is a whole number of any page size we meet.
const zeroLength = 2 << 20

// zeroSource stands in for UFFDIO_ZEROPAGE where the kernel doesn't offer it.
type zeroSource struct {
	// ranges is nil unless there is hugetlb memory. A range stays in it
	// when it is unregistered: copying zeros is right everywhere.
	ranges atomic.Pointer[[]rangeArg]

	mu sync.Mutex // held while ranges is replaced
	// zeros is private memory that is only ever read: the kernel backs all
	// of it with its one page of zeros.
	zeros []byte
}

func (z *zeroSource) add(addr uintptr, length uint64) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.zeros == nil {
		zeros, err := unix.Mmap(-1, 0, zeroLength, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return fmt.Errorf("userfaultfd: map a source of zeros: %w", err)
		}
		z.zeros = zeros
	}
	var ranges []rangeArg
	if old := z.ranges.Load(); old != nil {
		ranges = append(ranges, *old...)
	}
	ranges = append(ranges, rangeArg{uint64(addr), length})
	z.ranges.Store(&ranges)
	return nil
}

// needed reports whether zeros have to be copied at dst.
func (z *zeroSource) needed(dst uintptr) bool {
	ranges := z.ranges.Load()
	if ranges == nil {
		return false
	}
	for _, r := range *ranges {
		if uint64(dst)-r.start < r.len {
			return true
		}
	}
	return false
}

func (z *zeroSource) close() error {
	if z.zeros == nil {
		return nil
	}
	return unix.Munmap(z.zeros)
}

func (u *UFFD) copyZeros(dst uintptr, length uint64) (n uint64, err error) {
	for n < length {
		done, err := u.copy(dst+uintptr(n), u.zeros.zeros[:min(length-n, zeroLength)], true)
		n += done
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
