package blk

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// preadv2 is preadv2(2), with vectors of guest memory, which Go code must not
// have as slices.
func preadv2(fd int, v []unix.Iovec, off int64, flags int) (int, error) {
	return vectored(unix.SYS_PREADV2, fd, v, off, flags)
}

// pwritev2 is pwritev2(2).
func pwritev2(fd int, v []unix.Iovec, off int64, flags int) (int, error) {
	return vectored(unix.SYS_PWRITEV2, fd, v, off, flags)
}

// The fifth argument is the offset's upper half on 32-bit machines only.
func vectored(call uintptr, fd int, v []unix.Iovec, off int64, flags int) (int, error) {
	n, _, errno := unix.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&v[0])), uintptr(len(v)), uintptr(off), 0, uintptr(flags))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// address is where in this process a vector begins.
func address(v *unix.Iovec) uint64 { return uint64(uintptr(unsafe.Pointer(v.Base))) }

// advance takes the first n bytes off.
func advance(vectors []unix.Iovec, n uint64) []unix.Iovec {
	for len(vectors) > 0 && n >= vectors[0].Len {
		n -= vectors[0].Len
		vectors = vectors[1:]
	}
	if n > 0 {
		vectors[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(vectors[0].Base), n))
		vectors[0].Len -= n
	}
	return vectors
}
