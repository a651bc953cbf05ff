package doctor

import (
	"fmt"
	"math"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"microvm/memslot"
	"microvm/vmm"
)

// leastMemory is that of the smallest guest, in bytes.
const leastMemory = 128 << 20

// lookAtMemory looks at what guest memory is made of.
func lookAtMemory() []Check {
	return []Check{ram(), addressSpace(), transparentHugePages(), hugePages()}
}

func ram() Check {
	available, group, err := vmm.AvailableMemory()
	found := fmt.Sprintf("%d MiB are available to guests", available>>20)
	if group != "" {
		found += ", by the limit of cgroup " + group
	}
	if err == nil && available < leastMemory {
		err = fmt.Errorf("%s, and the smallest guest has %d MiB; end something, or add memory", found, leastMemory>>20)
	}
	if err == nil {
		err = memslot.Room(leastMemory, memslot.Anonymous)
	}
	return check("memory", forBoot, err, found)
}

func addressSpace() Check {
	c := Check{Name: "RLIMIT_AS", Status: OK, For: forBoot, Found: "no limit"}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &limit); err != nil {
		return check(c.Name, c.For, err, "")
	}
	if limit.Cur != math.MaxUint64 {
		c = c.warn(fmt.Sprintf("a process may map %d MiB, a guest's memory included", limit.Cur>>20), "ulimit -v unlimited")
	}
	return c
}

// thpFile says when the kernel makes huge pages by itself.
const thpFile = "/sys/kernel/mm/transparent_hugepage/enabled"

func transparentHugePages() Check {
	c := Check{Name: "transparent huge pages", Status: OK, For: "speed"}
	text, err := os.ReadFile(thpFile)
	c.Found = strings.TrimSpace(string(text))
	switch {
	case err != nil:
		c = c.warn("this kernel has none", "a kernel with CONFIG_TRANSPARENT_HUGEPAGE, or run --hugepages")
	case strings.Contains(c.Found, "[never]"):
		c = c.warn(c.Found, "echo madvise > "+thpFile)
	}
	return c
}

func hugePages() Check {
	total, free := memslot.HugePages()
	err := memslot.Room(hugePage, memslot.Hugetlb)
	c := check("huge pages", "--hugepages", err, fmt.Sprintf("%d of 2 MiB are reserved, %d of them free", total, free))
	if err != nil {
		c.Found = fmt.Sprintf("%d of 2 MiB are reserved, %d of them free", total, free)
		c.Remedy = "reserve one for each 2 MiB of guest memory: sysctl vm.nr_hugepages=N"
	}
	return c
}
