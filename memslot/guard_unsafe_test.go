package memslot

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestGuards has the kernel read the bytes directly before and after a block:
// it must find nothing there.
func TestGuards(t *testing.T) {
	eachBacking(t, func(t *testing.T, o BlockOptions) {
		b := newBlock(t, 1, o)
		start := unsafe.Pointer(unsafe.SliceData(b.mapping.mem))
		if err := writeTo(t, unsafe.Slice((*byte)(start), 1)); err != nil {
			t.Errorf("first byte: %v", err)
		}
		for name, at := range map[string]unsafe.Pointer{
			"before": unsafe.Add(start, -1),
			"after":  unsafe.Add(start, b.Size()),
		} {
			if err := writeTo(t, unsafe.Slice((*byte)(at), 1)); err != unix.EFAULT {
				t.Errorf("byte %s the block: %v, want EFAULT", name, err)
			}
		}
	})
}

func writeTo(t *testing.T, p []byte) error {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	_, _, errno := unix.Syscall(unix.SYS_WRITE, uintptr(fds[1]), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if errno != 0 {
		return errno
	}
	return nil
}
