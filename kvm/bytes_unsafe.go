package kvm

import "unsafe"

// bytesOf is the memory of a structure of the kernel's interface, to be copied
// into a saved state or out of one: its layout is the form of the state, since
// both are little-endian and no such structure has padding that is not a field
// (TestSavedStructuresHaveNoPadding).
func bytesOf[T any](p *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(p)), unsafe.Sizeof(*p))
}

// bytesOfAll is bytesOf for an array of them.
func bytesOfAll[T any](s []T) []byte {
	var one T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), uintptr(len(s))*unsafe.Sizeof(one))
}
