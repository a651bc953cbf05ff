// Package hugepool gets huge pages for tests of guest RAM that is made of them.
package hugepool

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	count = "/proc/sys/vm/nr_hugepages"
	// size tells that the pages of count are the ones that a Hugetlb block
	// is made of: pages of the default size.
	size = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
)

// Need adds n pages of 2 MiB to the host's pool until the test has ended. The
// test is skipped, with the remedy, if this process may not, or the host has
// no memory in such large pieces.
//
// Tests of several programs may do so at the same time: each takes back what
// it has added, not what there was before.
func Need(t testing.TB, n int) {
	t.Helper()
	err := change(n)
	switch {
	case err == nil:
		t.Cleanup(func() {
			if err := change(-n); err != nil {
				t.Errorf("give %d huge pages back: %v", n, err)
			}
		})
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EROFS):
		t.Skipf("%d huge pages: %v; run this test as root, on a host with %d MiB free and CONFIG_HUGETLBFS", n, err, 2*n)
	default:
		t.Fatalf("%d huge pages: %v", n, err)
	}
}

// change makes the pool larger by n pages, or smaller; by all of them or none.
func change(n int) error {
	f, err := os.OpenFile(count, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := os.Stat(size); err != nil {
		return err
	}
	// Ends with the file.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", count, err)
	}
	before, err := read()
	if err != nil {
		return err
	}
	want := max(before+n, 0)
	if err := write(want); err != nil {
		return err
	}
	if after, err := read(); err != nil || after >= want {
		return err
	}
	return errors.Join(unix.ENOMEM, write(before))
}

// Size is how many pages the pool has now.
func Size(t testing.TB) int {
	t.Helper()
	n, err := read()
	if errors.Is(err, unix.ENOENT) {
		t.Skipf("%v; run this test on a kernel with CONFIG_HUGETLBFS", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func read() (int, error) {
	text, err := os.ReadFile(count)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

func write(n int) error { return os.WriteFile(count, []byte(strconv.Itoa(n)), 0) }
