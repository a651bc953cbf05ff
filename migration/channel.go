package migration

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"microvm/migration/wire"
)

const (
	// helloTimeout bounds the wait for a peer's first bytes.
	helloTimeout = 10 * time.Second
	// bulkUnsent bounds what waits in the sockets of all channels for bulk
	// without having been sent, in bytes: enough to keep the link busy while the
	// pusher gathers its next batch, little enough that a page that somebody
	// waits for and that is in there already is soon out.
	bulkUnsent = 64 << 10
	// leastUnsent and leastWindow are what each of many channels has all the
	// same, in bytes: less would cost more calls and wakes than it gains.
	leastUnsent = 16 << 10
	leastWindow = 64 << 10
)

// newID draws the id of a migration.
func newID() wire.ID {
	var id wire.ID
	rand.Read(id[:]) // never fails: crypto/rand ends the program instead
	return id
}

// dialChannel opens one channel to a, or takes the connection that was passed for
// it, and has it accepted.
func (s *Source) dialChannel(ctx context.Context, a Address, h wire.Hello) (net.Conn, error) {
	if a.Network == networkFD {
		raw, err := s.passed.take(h)
		if err != nil {
			return nil, fmt.Errorf("%s channel: %w", h.Role, err)
		}
		c, err := openChannel(ctx, raw, a, s.opt.TLS, h)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
			err = fmt.Errorf("%w; a destination closes a connection that says nothing for %v: make them just before", err, greetTimeout)
		}
		return c, err
	}
	var d net.Dialer
	raw, err := d.DialContext(ctx, a.Network, a.Target)
	if err != nil {
		return nil, fmt.Errorf("%s channel to %s: %w; is `microvm receive` running there?", h.Role, a, err)
	}
	return openChannel(ctx, raw, a, s.opt.TLS, h)
}

// openChannel has a connection to a accepted as a channel, within TLS unless
// secure is nil. It closes it if that fails.
func openChannel(ctx context.Context, raw net.Conn, a Address, secure func() *tls.Config, h wire.Hello) (net.Conn, error) {
	// A cancelled context has to reach a read or write that waits.
	defer context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })()
	raw.SetDeadline(time.Now().Add(helloTimeout))
	if ctx.Err() != nil {
		raw.Close()
		return nil, ctx.Err()
	}
	c, w, err := greet(raw, a, secure, h)
	if err != nil {
		why, refused := err, false
		if secure != nil {
			why, refused = sourceSideTLS.explain(err)
		}
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
		case refused:
			hangUp(raw)
			return nil, &RefusedError{fmt.Sprintf("%s channel to %s: %v", h.Role, a, why)}
		default:
			err = why
		}
		raw.Close()
		return nil, fmt.Errorf("%s channel to %s: %w", h.Role, a, err)
	}
	if w.Version == 0 {
		c.Close()
		return nil, &RefusedError{fmt.Sprintf("%s channel to %s: the destination refused it: %s", h.Role, a, w.Refusal)}
	}
	if w.Version < h.MinVersion || w.Version > h.MaxVersion {
		c.Close()
		return nil, &RefusedError{fmt.Sprintf("%s channel to %s: the destination chose version %d; this side speaks %d to %d", h.Role, a, w.Version, h.MinVersion, h.MaxVersion)}
	}
	c.SetDeadline(time.Time{})
	tune(c, h)
	return c, nil
}

// greet says hello on a socket that is connected to a, and gives the channel on
// which it did and the answer.
func greet(c net.Conn, a Address, secure func() *tls.Config, h wire.Hello) (net.Conn, wire.Welcome, error) {
	if secure != nil {
		s, err := secureDial(c, secure, a.Target)
		if err != nil {
			return nil, wire.Welcome{}, err
		}
		c = s
	}
	_, err := c.Write(h.Append(nil))
	if err != nil {
		return nil, wire.Welcome{}, err
	}
	// In TLS 1.3 the handshake is over for this side before the destination
	// has looked at its certificate: what it thinks of that comes here.
	w, err := wire.ReadWelcome(c)
	return c, w, err
}

// deadPeer is after how long of silence a TCP connection counts as broken: no
// answer to keepalives, or to what was sent.
const deadPeer = 20 * time.Second

// tune sets the socket up for its role. Go sets TCP_NODELAY by itself.
func tune(c net.Conn, h wire.Hello) {
	bulk := h.Role != wire.RoleUrgent
	share := max(1, int(h.Multi)) // of what may be on its way, for one channel
	switch c := socketOf(c).(type) {
	case *net.TCPConn:
		// None of these can fail on a socket that is connected, but for a
		// kernel that lacks them, which does without.
		_ = c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: deadPeer / 4, Interval: deadPeer / 4, Count: 3})
		raw, err := c.SyscallConn()
		if err != nil {
			return
		}
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadPeer.Milliseconds()))
			if bulk {
				tuneBulk(int(fd), share)
			}
		})
	case *net.UnixConn:
		if bulk {
			_ = c.SetWriteBuffer(max(leastUnsent, bulkUnsent/share))
		}
	}
}

// tuneBulk bounds how much bulk data can be between the two sides, since a page
// that somebody comes to wait for may be in there, and is not sent again. fd is
// one of so many connections that share the bound.
func tuneBulk(fd, share int) {
	// What has not been sent. Unlike a small SO_SNDBUF this does not bound
	// what is in flight, so that a long round trip costs no throughput.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, max(leastUnsent, bulkUnsent/share))
	// What has not been read: twice what fills a link of 10 Gbit/s for one
	// round trip. Left alone the kernel would let 6 MiB pile up at a receiver
	// that is slower than the link, whatever the round trip. Where that is
	// long, the window has to be, and hardly matters beside it.
	const bytesPerMicrosecond = 2 * 1250
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || time.Duration(info.Rtt)*time.Microsecond > time.Millisecond {
		return
	}
	window := max(leastWindow, max(256<<10, int(info.Rtt)*bytesPerMicrosecond)/share)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, window)
}
