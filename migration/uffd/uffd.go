package uffd

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ErrInterrupted is what Wait returns once Interrupt has been called.
var ErrInterrupted = errors.New("interrupted")

// Event is one page fault.
type Event struct {
	Addr  uint64 // host virtual address, rounded down to the page
	Flags uint64 // FaultWrite
	TID   int    // the kernel's id of the thread that waits
}

// UFFD is one userfaultfd. Copy, ZeroPage, Wake and Interrupt may be called
// from any goroutine at once; Wait and Read belong to one reader.
type UFFD struct {
	fd int
	// stop is an eventfd that becomes readable for good when the reader is
	// to return.
	stop int
	poll [2]unix.PollFd

	zeros    zeroSource
	messages [64]message // what Read reads into
}

const device = "/dev/userfaultfd"

// Open opens a userfaultfd by /dev/userfaultfd (Linux 6.1), whose file
// permissions say who may, or else by userfaultfd(2), which wants
// CAP_SYS_PTRACE or vm.unprivileged_userfaultfd.
func Open() (*UFFD, error) {
	fd, _, err := openAny()
	if err != nil {
		return nil, err
	}
	if err := handshake(fd); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("userfaultfd: %w", err)
	}
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("userfaultfd: eventfd: %w", err)
	}
	return &UFFD{
		fd: fd, stop: stop,
		poll: [2]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(stop), Events: unix.POLLIN}},
	}, nil
}

// openAny opens one, and says by which way.
func openAny() (fd int, way string, err error) {
	fd, err = openDevice()
	if err == nil {
		return fd, device, nil
	}
	fd, callErr := openCall()
	if callErr != nil {
		return -1, "", fmt.Errorf("userfaultfd: %w; system call: %w; run as root, or give the user access to %s, or set sysctl vm.unprivileged_userfaultfd=1 (kernel needs CONFIG_USERFAULTFD)", err, callErr, device)
	}
	return fd, "the system call", nil
}

// reserved is the device of Reserve.
var reserved atomic.Pointer[os.File]

// Reserve opens /dev/userfaultfd for every Open to come: for a process that is
// about to go where there is no such file, or as a user who may not open it. The
// error is that of opening it.
func Reserve() error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err == nil && !reserved.CompareAndSwap(nil, f) {
		err = f.Close()
	}
	return err
}

func openDevice() (int, error) {
	f := reserved.Load()
	if f == nil {
		var err error
		if f, err = os.OpenFile(device, os.O_RDWR, 0); err != nil {
			return -1, err
		}
		defer f.Close()
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), userfaultfdNew, unix.O_CLOEXEC|unix.O_NONBLOCK)
	if errno != 0 {
		return -1, fmt.Errorf("%s: USERFAULTFD_IOC_NEW: %w", device, errno)
	}
	return int(fd), nil
}

func openCall() (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// Close closes the descriptor. The kernel then resolves every fault that still
// waits as if nobody had watched: missing pages read as zeros. Therefore
// whatever must not see that, vCPUs above all, has to be stopped before.
func (u *UFFD) Close() error {
	return errors.Join(unix.Close(u.fd), unix.Close(u.stop), u.zeros.close())
}

// Wait blocks until there is an event to read. The error is ErrInterrupted
// after Interrupt, whatever else there is.
func (u *UFFD) Wait() error {
	for {
		_, err := unix.Poll(u.poll[:], -1)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("userfaultfd: poll: %w", err)
		case u.poll[1].Revents != 0:
			return ErrInterrupted
		case u.poll[0].Revents&unix.POLLIN != 0:
			return nil
		case u.poll[0].Revents != 0:
			return fmt.Errorf("userfaultfd: poll: revents %#x: the descriptor is of no more use", u.poll[0].Revents)
		}
	}
}

// Interrupt makes the Wait that runs, and each one after it, return.
func (u *UFFD) Interrupt() {
	// The counter of an eventfd in host byte order. It can only fail if it
	// is about to overflow, and then it is readable anyway.
	unix.Write(u.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// Read takes up to len(events) events (at most 64) without blocking. When there
// is none the error is unix.EAGAIN itself. It does not allocate.
func (u *UFFD) Read(events []Event) (int, error) {
	n, err := u.read(len(events))
	if err != nil {
		return 0, err
	}
	for i := range u.messages[:n] {
		m := &u.messages[i]
		if m.event != eventPagefault {
			return i, fmt.Errorf("userfaultfd: event %#x, which was not asked for", m.event)
		}
		events[i] = Event{Addr: m.address, Flags: m.flags, TID: int(m.threadID)}
	}
	return n, nil
}

// Copy puts src in place at dst, which is a missing page or a run of them, and
// with wake lets whoever waits for them go on. Both are aligned to and made of
// whole pages. It returns how many bytes are in place now, and a bare errno if
// that isn't all:
//
//   - EEXIST: the page at dst+n is there already.
//   - EAGAIN: the kernel stopped early, or the address space is being changed
//     by another thread: go on at dst+n.
//   - ENOENT: dst+n is not registered, or not mapped any more.
//   - ESRCH: the process that owns the memory is gone.
//
// After a part was copied, the reason for which it stopped shows in the next
// call: the first one says EAGAIN.
func (u *UFFD) Copy(dst uintptr, src []byte, wake bool) (n uint64, err error) {
	return u.copy(dst, src, wake)
}

// ZeroPage puts zero pages in place and wakes, otherwise like Copy. Where the kernel offers no
// UFFDIO_ZEROPAGE, which is on hugetlb, it copies zeros.
func (u *UFFD) ZeroPage(dst uintptr, length uint64) (n uint64, err error) {
	if u.zeros.needed(dst) {
		return u.copyZeros(dst, length)
	}
	return u.zeroPage(dst, length)
}
