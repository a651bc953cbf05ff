package blk

import (
	"testing"
	"unsafe"
)

// The sizes in linux/io_uring.h.
func TestRingStructsAreTheKernels(t *testing.T) {
	for name, sizes := range map[string][2]uintptr{
		"io_uring_params": {unsafe.Sizeof(uringParams{}), 120},
		"io_uring_sqe":    {unsafe.Sizeof(uringSQE{}), 64},
		"io_uring_cqe":    {unsafe.Sizeof(uringCQE{}), 16},
	} {
		if sizes[0] != sizes[1] {
			t.Errorf("struct %s has %d bytes, want %d", name, sizes[0], sizes[1])
		}
	}
}
