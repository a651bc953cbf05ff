package vsock

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// A source is where a connection's bytes for the guest come from: a socket, of
// which either the receive queue's worker reads or the watcher waits for more.
// What it does to the descriptor is made once, or each call would allocate.
type source struct {
	raw     syscall.RawConn
	vectors []unix.Iovec
	n       int
	err     error
	poll    [1]unix.PollFd

	once, readable, hungUp func(fd uintptr) bool
}

func (s *source) init(raw syscall.RawConn) {
	s.raw = raw
	s.once = func(fd uintptr) bool {
		s.n, s.err = readv(fd, s.vectors)
		return true
	}
	s.readable = func(fd uintptr) bool { return s.look(fd) != 0 }
	s.hungUp = func(fd uintptr) bool { return s.look(fd)&^unix.POLLIN != 0 }
}

// look reports what there is: something to read or its end (POLLIN), and that the
// other side has closed the socket (POLLHUP).
func (s *source) look(fd uintptr) int16 {
	s.poll[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	for {
		switch _, err := unix.Poll(s.poll[:], 0); err {
		case nil:
			return s.poll[0].Revents
		case unix.EINTR:
		default:
			return unix.POLLERR
		}
	}
}

// read reads what is there, without waiting. Nothing and no error is the end.
func (s *source) read(v []unix.Iovec) (uint32, error) {
	s.vectors, s.n = v, 0
	if err := s.raw.Read(s.once); err != nil {
		return 0, err
	}
	return uint32(s.n), s.err
}

// watch tells the receive queue's worker when there is something in the socket,
// until the connection is done.
func (c *conn) watch() {
	for {
		err := c.in.raw.Read(c.in.readable)
		c.d.mu.Lock()
		if c.state == stateOpen && err == nil {
			c.readable = true
			c.d.enqueue(c)
		}
		c.d.mu.Unlock()
		select {
		case <-c.proceed:
		case <-c.done:
			return
		}
		c.d.mu.Lock()
		ended := c.ended
		c.d.mu.Unlock()
		if ended {
			c.watchEnd()
			return
		}
	}
}

// watchEnd tells the guest of a socket whose program sends no more, and, when the
// program has closed it, that it does not receive either.
func (c *conn) watchEnd() {
	c.d.mu.Lock()
	c.shut(shutSend)
	c.d.mu.Unlock()
	if c.in.raw.Read(c.in.hungUp) != nil {
		return // the connection has ended meanwhile
	}
	c.d.mu.Lock()
	c.shut(shutBoth)
	c.d.mu.Unlock()
}
