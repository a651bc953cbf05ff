package memslot

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is the size of a hugetlb page, and the alignment that lets KVM and
// the kernel use 2 MiB pages for the guest.
const hugePage = 2 << 20

// mapping is host memory outside the Go heap, inside a larger reservation so
// that what lies directly before and after it cannot be accessed.
type mapping struct {
	addr uintptr
	mem  []byte
	// reserved is the whole of it, guards included. It cannot be touched.
	reserved unsafe.Pointer
	length   uintptr
	fd       int // memfd, or -1
}

func newMapping(name string, size uint64, kind Backing) (m mapping, err error) {
	m = mapping{fd: -1, length: uintptr(size) + 2*hugePage}
	flags := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	switch kind {
	case Memfd:
		if m.fd, err = newMemfd(name, size); err != nil {
			return m, err
		}
		flags = unix.MAP_SHARED
	case Hugetlb:
		flags |= unix.MAP_HUGETLB | unix.MAP_HUGE_2MB
	}
	m.reserved, err = unix.MmapPtr(-1, 0, nil, m.length, unix.PROT_NONE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		m.length = 0
		m.close()
		return m, fmt.Errorf("reserve address space: %w", err)
	}
	// From 1 byte to 2 MiB, and never 0: there is a guard on both sides.
	lead := hugePage - uintptr(m.reserved)%hugePage
	start := unsafe.Add(m.reserved, lead)
	_, err = unix.MmapPtr(m.fd, 0, start, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, flags|unix.MAP_FIXED)
	if err != nil {
		m.close()
		return m, explain(err, size, kind)
	}
	// This memory belongs to the kernel's mmap, not to Go: it does not move,
	// so its address may be kept as a number.
	m.addr = uintptr(start)
	m.mem = unsafe.Slice((*byte)(start), int(size))
	if err := m.advise(kind); err != nil {
		m.close()
		return m, err
	}
	return m, nil
}

func newMemfd(name string, size uint64) (int, error) {
	// The kernel limits the name, which is only for /proc/pid/maps.
	fd, err := unix.MemfdCreate(name[:min(len(name), 200)], unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("memfd: ftruncate: %w", err)
	}
	return fd, nil
}

func (m *mapping) advise(kind Backing) error {
	// A child has no use for guest RAM, and a core dump of this process is
	// not to be as large as the guest, nor to hold its secrets.
	for _, advice := range []int{unix.MADV_DONTFORK, unix.MADV_DONTDUMP} {
		if err := unix.Madvise(m.mem, advice); err != nil {
			return fmt.Errorf("madvise %d: %w", advice, err)
		}
	}
	if kind != Anonymous {
		return nil
	}
	// EINVAL: a kernel without transparent huge pages. It works, slower.
	if err := unix.Madvise(m.mem, unix.MADV_HUGEPAGE); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("madvise MADV_HUGEPAGE: %w", err)
	}
	return nil
}

// discard gives the host pages back. What is touched next is zero again, or
// missing where userfaultfd watches.
func (m *mapping) discard(off, n uint64) error {
	if m.fd >= 0 {
		err := unix.Fallocate(m.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(n))
		return os.NewSyscallError("fallocate PUNCH_HOLE", err)
	}
	return os.NewSyscallError("madvise MADV_DONTNEED", unix.Madvise(m.mem[off:off+n], unix.MADV_DONTNEED))
}

func (m *mapping) close() error {
	var errs []error
	if m.length != 0 {
		errs = append(errs, os.NewSyscallError("munmap", unix.MunmapPtr(m.reserved, m.length)))
		m.length = 0
	}
	if m.fd >= 0 {
		errs = append(errs, unix.Close(m.fd))
		m.fd = -1
	}
	return errors.Join(errs...)
}

// explain adds the numbers and the remedy to a refused mmap.
func explain(err error, size uint64, kind Backing) error {
	if !errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("mmap: %w", err)
	}
	if kind == Hugetlb {
		need, nr, free := hugePool(size)
		return fmt.Errorf("mmap: %w: needs %d pages of 2 MiB, the host has %d and %d are free; reserve more: sysctl vm.nr_hugepages=%d",
			err, need, nr, free, nr+need-min(need, free))
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return fmt.Errorf("mmap: %w: give the guest less memory", err)
	}
	return fmt.Errorf("mmap: %w: the host has %d MiB of RAM, %d MiB of it free; give the guest less memory",
		err, info.Totalram*uint64(info.Unit)>>20, info.Freeram*uint64(info.Unit)>>20)
}

// readCount reads a number from sysfs; what cannot be read counts as none.
func readCount(path string) uint64 {
	var n uint64
	text, err := os.ReadFile(path)
	if err == nil {
		fmt.Sscan(strings.TrimSpace(string(text)), &n)
	}
	return n
}
