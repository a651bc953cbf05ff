package uffd

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Support is what a host's userfaultfd offers this process.
type Support struct {
	Way      string // by which it can be opened: the device or the system call
	ThreadID bool   // UFFD_FEATURE_THREAD_ID, which Open needs
	Hugetlb  bool   // UFFD_FEATURE_MISSING_HUGETLBFS
	Features uint64 // all of them, UFFD_FEATURE_*
}

// Survey opens a userfaultfd as Open does, asks what it can do, and closes it.
func Survey() (Support, error) {
	fd, way, err := openAny()
	if err != nil {
		return Support{}, err
	}
	defer unix.Close(fd)
	features, err := offered(fd)
	if err != nil {
		return Support{}, fmt.Errorf("userfaultfd: %w", err)
	}
	return Support{way, features&featureThreadID != 0, features&featureMissingHugetlbfs != 0, features}, nil
}
