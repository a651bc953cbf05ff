package net

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// readv is readv(2), with vectors of guest memory, which Go code must not have
// as slices.
func readv(fd int, v []unix.Iovec) (int, error) { return vectored(unix.SYS_READV, fd, v) }

// writev is writev(2).
func writev(fd int, v []unix.Iovec) (int, error) { return vectored(unix.SYS_WRITEV, fd, v) }

func vectored(call uintptr, fd int, v []unix.Iovec) (int, error) {
	for {
		n, _, errno := unix.Syscall(call, uintptr(fd), uintptr(unsafe.Pointer(&v[0])), uintptr(len(v)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			return 0, unix.EAGAIN // a constant: the others allocate
		case unix.EINTR:
			continue
		}
		return 0, errno
	}
}
