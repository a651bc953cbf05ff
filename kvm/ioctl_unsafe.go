package kvm

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
)

// ioctl makes r on fd with an argument that is a number, again if a signal
// interrupts it. The error names r and wraps the errno.
func ioctl(fd int, r request, arg uintptr) (int, error) {
	for {
		n, err := gokvm.Ioctl(uintptr(fd), r.nr, arg)
		switch err {
		case nil:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, fmt.Errorf("%s: %w", r.name, err)
		}
	}
}

// ioctlPtr makes r on fd with an argument that the kernel reads or writes
// through a pointer. *arg may hold unsafe.Pointers for the kernel to follow.
func ioctlPtr[T any](fd int, r request, arg *T) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), r.nr, uintptr(unsafe.Pointer(arg)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, fmt.Errorf("%s: %w", r.name, errno)
		}
	}
}
