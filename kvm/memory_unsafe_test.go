package kvm

import "unsafe"

// hva is the address of mapped memory, as a memory slot wants it.
func hva(mem []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mem)))) }
