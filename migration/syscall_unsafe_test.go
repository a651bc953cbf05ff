package migration

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// syscallReader reads memory that may be missing the only way that is safe:
// inside a system call. Each belongs to one OS thread.
type syscallReader struct {
	pipe [2]int
	buf  [1]byte
}

func newSyscallReader() (*syscallReader, error) {
	runtime.LockOSThread()
	r := &syscallReader{}
	return r, unix.Pipe(r.pipe[:])
}

func (r *syscallReader) tid() int { return unix.Gettid() }

func (r *syscallReader) close() {
	unix.Close(r.pipe[0])
	unix.Close(r.pipe[1])
	runtime.UnlockOSThread()
}

// firstByte has the kernel read the byte at addr.
func (r *syscallReader) firstByte(addr uintptr) (byte, error) {
	if _, _, errno := unix.Syscall(unix.SYS_WRITE, uintptr(r.pipe[1]), addr, 1); errno != 0 {
		return 0, errno
	}
	if _, _, errno := unix.Syscall(unix.SYS_READ, uintptr(r.pipe[0]), uintptr(unsafe.Pointer(&r.buf[0])), 1); errno != 0 {
		return 0, errno
	}
	return r.buf[0], nil
}
