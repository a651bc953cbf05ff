package confine

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// install puts a filter on every thread of the process, and on those that these
// make. All of them have no_new_privs then.
func install(program code) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	arg := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&arg)))
	switch {
	case errno != 0:
		return fmt.Errorf("seccomp: %w; the kernel needs CONFIG_SECCOMP_FILTER (Linux 3.17); --seccomp off does without", errno)
	case thread != 0:
		return fmt.Errorf("seccomp: thread %d has another filter; --seccomp off does without", thread)
	}
	return nil
}
