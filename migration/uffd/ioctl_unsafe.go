package uffd

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// handshake is UFFDIO_API, which comes before all else.
func handshake(fd int) error {
	arg := apiArg{api: apiVersion, features: featureThreadID}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uffdioAPI, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return fmt.Errorf("UFFDIO_API with UFFD_FEATURE_THREAD_ID: %w (needs Linux 4.14)", errno)
	}
	const need = 1<<nrRegister | 1<<nrUnregister
	if arg.ioctls&need != need {
		return fmt.Errorf("UFFDIO_API: ioctls %#x offered, %#x needed", arg.ioctls, uint64(need))
	}
	return nil
}

// offered asks UFFDIO_API which features there are. The descriptor is of no
// other use then.
func offered(fd int) (features uint64, err error) {
	arg := apiArg{api: apiVersion}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uffdioAPI, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return 0, fmt.Errorf("UFFDIO_API: %w", errno)
	}
	return arg.features, nil
}

// Register makes missing pages in the range faults for this descriptor. Both
// ends are aligned to the page. Pages that are there already stay as they are.
func (u *UFFD) Register(addr uintptr, length uint64) error {
	arg := registerArg{rng: rangeArg{uint64(addr), length}, mode: registerModeMissing}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(u.fd), uffdioRegister, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return fmt.Errorf("UFFDIO_REGISTER [%#x, +%#x): %w", addr, length, errno)
	}
	const need = 1<<nrCopy | 1<<nrWake
	if arg.ioctls&need != need {
		u.Unregister(addr, length)
		return fmt.Errorf("UFFDIO_REGISTER [%#x, +%#x): ioctls %#x offered, %#x needed: this kind of memory cannot be filled on demand", addr, length, arg.ioctls, uint64(need))
	}
	if arg.ioctls&(1<<nrZeropage) == 0 {
		if err := u.zeros.add(addr, length); err != nil {
			u.Unregister(addr, length)
			return err
		}
	}
	return nil
}

// Unregister ends that, and wakes whoever waits for a page in the range: what
// is still missing there reads as zeros from then on.
func (u *UFFD) Unregister(addr uintptr, length uint64) error {
	arg := rangeArg{uint64(addr), length}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(u.fd), uffdioUnregister, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return fmt.Errorf("UFFDIO_UNREGISTER [%#x, +%#x): %w", addr, length, errno)
	}
	return nil
}

// Wake lets whoever waits for a page in the range try again.
func (u *UFFD) Wake(addr uintptr, length uint64) error {
	arg := rangeArg{uint64(addr), length}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(u.fd), uffdioWake, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return fmt.Errorf("UFFDIO_WAKE [%#x, +%#x): %w", addr, length, errno)
	}
	return nil
}

func (u *UFFD) copy(dst uintptr, src []byte, wake bool) (uint64, error) {
	arg := copyArg{dst: uint64(dst), src: unsafe.SliceData(src), len: uint64(len(src))}
	if !wake {
		arg.mode = copyModeDontWake
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(u.fd), uffdioCopy, uintptr(unsafe.Pointer(&arg)))
	return progress(arg.copied, errno)
}

func (u *UFFD) zeroPage(dst uintptr, length uint64) (uint64, error) {
	arg := zeropageArg{rng: rangeArg{uint64(dst), length}}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(u.fd), uffdioZeropage, uintptr(unsafe.Pointer(&arg)))
	return progress(arg.zeroed, errno)
}

// progress reads the field that the kernel leaves: bytes done, or an errno
// again, or what it was if the request was refused before it began.
func progress(done int64, errno unix.Errno) (uint64, error) {
	n := uint64(max(done, 0))
	if errno != 0 {
		return n, errno
	}
	return n, nil
}

// read fills messages and returns how many there are.
func (u *UFFD) read(limit int) (int, error) {
	limit = min(limit, len(u.messages))
	for {
		n, _, errno := unix.Syscall(unix.SYS_READ, uintptr(u.fd), uintptr(unsafe.Pointer(&u.messages)), uintptr(limit)*messageSize)
		switch errno {
		case 0:
			return int(n / messageSize), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, unix.EAGAIN
		default:
			return 0, fmt.Errorf("userfaultfd: read: %w", errno)
		}
	}
}
