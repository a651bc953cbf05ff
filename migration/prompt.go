package migration

import (
	"io"
	"net"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// promptConn is a connection whose reader is a thread of its own, which the
// kernel wakes directly. A read that Go's poller waits for wakes a thread of
// the runtime first, and that one another: on a host whose CPUs are busy with
// guests and bulk data each of them waits for its turn.
type promptConn struct {
	net.Conn
	raw syscall.RawConn // nil: reads are as ever
}

// prompt makes c's reads prompt, if c is a socket or TLS on one. Read deadlines
// no longer have an effect; closing has. Nobody reads or closes meanwhile.
func prompt(c net.Conn) net.Conn {
	if s, ok := c.(*secureConn); ok {
		s.socket.prompt()
		return s
	}
	p := &promptConn{Conn: c}
	p.prompt()
	return p
}

func (c *promptConn) prompt() {
	s, ok := c.Conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return // closed: a read says so
	}
	c.raw = raw
}

func (c *promptConn) Read(p []byte) (n int, err error) {
	if c.raw == nil {
		return c.Conn.Read(p)
	}
	for {
		rerr := c.raw.Read(func(fd uintptr) bool {
			n, err = unix.Read(int(fd), p)
			return true // whatever came of it: it is this thread that waits
		})
		switch {
		case rerr != nil:
			return 0, rerr
		case err == nil && n == 0 && len(p) > 0:
			return 0, io.EOF
		case err == unix.EINTR:
		case err != unix.EAGAIN:
			return max(n, 0), err
		default:
			perr := c.raw.Control(func(fd uintptr) {
				wait := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
				_, err = unix.Poll(wait, -1)
			})
			if perr != nil {
				return 0, perr
			}
		}
	}
}

// Close wakes the reader, which closing alone would not.
func (c *promptConn) Close() error {
	if c.raw != nil {
		_ = c.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
	return c.Conn.Close()
}

// urgentThread gives the calling goroutine a thread of its own that goes before
// others, as far as this process may: what it does for each page is short, and
// a vCPU stands still until it is done. The thread ends with the goroutine.
func urgentThread() {
	runtime.LockOSThread()
	const before = -15
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), before)
	shortSlice()
}

// urgentSlice is how long an urgent thread means to run at a time: the least
// that the kernel takes.
const urgentSlice = 100 * time.Microsecond

// shortSlice asks the scheduler for short turns (Linux 6.12). With the default
// of about 3 ms the deadline of a thread that has just woken lies behind that
// of a vCPU in the middle of its turn, which then is not interrupted. It takes
// no privilege; a kernel that knows no slices ignores it.
func shortSlice() {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil || attr.Policy != unix.SCHED_NORMAL {
		return
	}
	attr.Runtime = uint64(urgentSlice)
	_ = unix.SchedSetAttr(0, attr, 0)
}
