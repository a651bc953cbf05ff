package confine

import "kernel.org/pub/linux/libs/security/libcap/psx"

// onAllThreads makes a system call in every thread, and in those that they make
// meanwhile. The kernel has what it changes for each thread by itself.
//
//go:uintptrescapes
func onAllThreads(nr, a, b, c uintptr) error {
	if _, _, errno := psx.Syscall6(nr, a, b, c, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
