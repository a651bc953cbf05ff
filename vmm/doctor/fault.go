package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"microvm/memslot"
	"microvm/migration/uffd"
)

const hugePage = 2 << 20

// lookAtUserfaultfd opens one as a destination does, and has it put pages in
// place.
func lookAtUserfaultfd() []Check {
	support, err := uffd.Survey()
	if err == nil && !support.ThreadID {
		err = errors.New("UFFD_FEATURE_THREAD_ID is not offered; use Linux 4.14 or newer")
	}
	if err == nil {
		err = placePage(memslot.Anonymous, uint64(os.Getpagesize()))
	}
	way := check("userfaultfd", forMigrate, err, fmt.Sprintf("by %s; it puts pages in place (features %#x, vm.unprivileged_userfaultfd=%s)", support.Way, support.Features, sysctl("vm/unprivileged_userfaultfd")))
	if err != nil {
		return []Check{way}
	}
	huge := Check{Name: "userfaultfd MISSING_HUGETLBFS", Status: OK, For: "migrate with --hugepages", Found: "offered"}
	switch _, free := memslot.HugePages(); {
	case !support.Hugetlb:
		huge.Status, huge.Found, huge.Remedy = Missing, "not offered", "use Linux 4.11 or newer, or receive --hugepages off"
	case free == 0:
		huge.Found += "; not tried, since no huge page is free"
	default:
		huge = check(huge.Name, huge.For, placePage(memslot.Hugetlb, hugePage), "offered; it puts a huge page in place")
	}
	return []Check{way, huge}
}

// placePage fills a page of watched memory, as a destination does.
func placePage(kind memslot.Backing, size uint64) (err error) {
	fd, err := uffd.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fd.Close()) }()
	b, err := memslot.NewBlock("doctor", size, memslot.BlockOptions{Backing: kind})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := fd.Register(b.Addr(), size); err != nil {
		return err
	}
	page := bytes.Repeat([]byte("doctor__"), int(size)/8)
	if n, err := fd.Copy(b.Addr(), page, true); err != nil {
		return fmt.Errorf("UFFDIO_COPY: %d of %d bytes: %w", n, size, err)
	}
	if err := fd.Unregister(b.Addr(), size); err != nil {
		return err
	}
	got, err := b.View(0, size)
	if err == nil && !bytes.Equal(got, page) {
		err = errors.New("UFFDIO_COPY: what is in place is not what was to be")
	}
	return err
}

// sysctl reads a setting; "none" where there is no such one.
func sysctl(name string) string {
	text, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return "none"
	}
	return strings.TrimSpace(string(text))
}
