package tap

import "golang.org/x/sys/unix"

// Requests are the numbers of all ioctls that this package makes: for a seccomp
// filter.
func Requests() []uint32 {
	return []uint32{
		unix.TUNSETIFF, unix.TUNGETIFF, unix.TUNSETVNETHDRSZ, unix.TUNSETSNDBUF, unix.TUNSETOFFLOAD, unix.TUNSETOWNER,
		unix.TUNSETQUEUE, unix.TUNSETCARRIER,
	}
}
