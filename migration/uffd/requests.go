package uffd

// Requests are the numbers of all ioctls that this package makes, that which
// puts a page in place first: for a seccomp filter.
func Requests() []uint32 {
	return []uint32{
		uint32(uffdioCopy), uint32(uffdioZeropage), uint32(uffdioWake),
		userfaultfdNew, uint32(uffdioAPI), uint32(uffdioRegister), uint32(uffdioUnregister),
	}
}
