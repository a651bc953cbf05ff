//go:build cgo

package confine

import "golang.org/x/sys/unix"

// ofBuild is what the C library and the race detector call besides. Only tests
// are built with cgo, for the race detector.
func ofBuild() []rule {
	var rules []rule
	for _, nr := range []uint32{
		unix.SYS_CLONE3, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_SET_TID_ADDRESS, unix.SYS_MREMAP, unix.SYS_PRCTL,
		unix.SYS_READLINK, unix.SYS_OPEN, unix.SYS_STAT, unix.SYS_ACCESS, unix.SYS_SCHED_GETPARAM, unix.SYS_SCHED_GETSCHEDULER,
		unix.SYS_MMAP, unix.SYS_MPROTECT, unix.SYS_TKILL,
	} {
		rules = append(rules, rule{nr: nr})
	}
	return rules
}
