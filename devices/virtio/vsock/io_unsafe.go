package vsock

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxVectors is how many vectors a system call takes (UIO_MAXIOV).
const maxVectors = 1024

// readv is readv(2), with vectors of guest memory, which Go code must not have
// as slices.
func readv(fd uintptr, v []unix.Iovec) (int, error) { return vectored(unix.SYS_READV, fd, v) }

// writev is writev(2).
func writev(fd uintptr, v []unix.Iovec) (int, error) { return vectored(unix.SYS_WRITEV, fd, v) }

func vectored(call, fd uintptr, v []unix.Iovec) (int, error) {
	for {
		n, _, errno := unix.Syscall(call, fd, uintptr(unsafe.Pointer(&v[0])), uintptr(min(len(v), maxVectors)))
		switch {
		case errno == 0:
			return int(n), nil
		case !errors.Is(errno, unix.EINTR):
			return 0, errno
		}
	}
}
