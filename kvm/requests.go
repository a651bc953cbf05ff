package kvm

import "slices"

// numbers are those of all requests that define made.
var numbers []uint32

// define makes a request.
func define(name string, nr uintptr) request {
	numbers = append(numbers, uint32(nr))
	return request{name, nr}
}

// Requests are the numbers of all ioctls that this package makes, KVM_RUN first:
// for a seccomp filter.
func Requests() []uint32 {
	run := uint32(runVCPU.nr)
	others := slices.DeleteFunc(slices.Clone(numbers), func(nr uint32) bool { return nr == run })
	return append([]uint32{run}, others...)
}
