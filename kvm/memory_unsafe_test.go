package kvm

import "unsafe"

// hva is the address of mapped memory, as a memory slot wants it.
func hva(mem []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mem)))) }

// word is the 8 bytes at an aligned offset of mapped memory.
func word(mem []byte, off uint64) *uint64 { return (*uint64)(unsafe.Pointer(&mem[off])) }
