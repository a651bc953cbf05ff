package vsock

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// maxGreeting is how long the line is at most that a program says what it wants
// with.
const maxGreeting = 32

// Listen lets programs of the host connect, at a socket that becomes the
// device's, and the guest connect to programs of the host. It may follow a Leave.
func (d *Device) Listen(l *net.UnixListener) {
	d.mu.Lock()
	d.listener = l
	d.mu.Unlock()
	go d.accept(l)
}

// Leave ends every connection, without a word to the guest, and lets no new one
// be made. The host's programs get what the guest has sent, and then the end.
func (d *Device) Leave() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.conns {
		d.finish(c, false)
	}
	for host := range d.greeting {
		_ = host.Close() // greet sees that
	}
	l := d.listener
	d.listener = nil
	if l == nil {
		return nil
	}
	if err := l.Close(); err != nil {
		return fmt.Errorf("vsock: %w", err)
	}
	return nil
}

// accept takes the host's programs in.
func (d *Device) accept(l *net.UnixListener) {
	for {
		host, err := l.AcceptUnix()
		switch {
		case err == nil:
		case errors.Is(err, net.ErrClosed):
			return
		default:
			// Such as no descriptors left.
			d.options.Log.Warn("a program's connection to the guest failed", "socket", d.options.Path, "error", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		d.mu.Lock()
		ok := d.listener == l && d.takeSlot()
		if ok {
			d.greeting[host] = struct{}{}
		} else {
			d.counts.refused.Add(1)
		}
		d.mu.Unlock()
		if !ok {
			_ = host.Close()
			continue
		}
		go d.greet(host)
	}
}

// greet finds out what a program of the host wants, and asks the guest.
func (d *Device) greet(host *net.UnixConn) {
	port, err := readGreeting(host, d.options.handshake)
	if err == nil {
		d.mu.Lock()
		over := d.notice.over
		d.mu.Unlock()
		select {
		case <-over:
		case <-time.After(d.options.handshake): // there is no driver
		}
	}
	raw, rawErr := host.SyscallConn()
	d.mu.Lock()
	delete(d.greeting, host)
	if err = errors.Join(err, rawErr); err != nil || d.listener == nil {
		d.slots--
		d.counts.refused.Add(1)
		d.mu.Unlock()
		_ = host.Close()
		return
	}
	c := d.newConn(key{guest: port, host: d.freePort(port)}, stateAsking)
	c.attach(host, raw)
	c.say(opRequest)
	c.expire(stateAsking, d.options.handshake)
	d.mu.Unlock()
	select {
	case <-c.proceed:
		c.watch()
	case <-c.done:
	}
}

// freePort gives a host port that makes a new key with the guest's. mu is held,
// and there are fewer connections than ports.
func (d *Device) freePort(guest uint32) uint32 {
	for {
		port := d.nextPort
		if d.nextPort++; d.nextPort == anyPort {
			d.nextPort = firstPort
		}
		if d.conns[key{guest, port}] == nil {
			return port
		}
	}
}

// readGreeting reads "CONNECT PORT\n", and not a byte more.
func readGreeting(host *net.UnixConn, within time.Duration) (port uint32, err error) {
	if err := host.SetReadDeadline(time.Now().Add(within)); err != nil {
		return 0, err
	}
	var line [maxGreeting]byte
	n := 0
	for {
		if n == len(line) {
			return 0, fmt.Errorf("%q: want CONNECT PORT", line)
		}
		if _, err := host.Read(line[n : n+1]); err != nil {
			return 0, err
		}
		if line[n] == '\n' {
			break
		}
		n++
	}
	if port, err = parseGreeting(string(line[:n])); err != nil {
		return 0, err
	}
	return port, host.SetReadDeadline(time.Time{})
}

func parseGreeting(line string) (port uint32, err error) {
	word, number, _ := strings.Cut(strings.TrimSuffix(line, "\r"), " ")
	if !strings.EqualFold(word, "connect") {
		return 0, fmt.Errorf("%q: want CONNECT PORT", line)
	}
	v, err := strconv.ParseUint(number, 10, 32)
	return uint32(v), err
}

// dial connects a guest to a program of the host.
func (c *conn) dial(path string) {
	host, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	d := c.d
	if err != nil {
		d.options.Log.Debug("a guest's connection is refused", "socket", path, "error", err)
		d.mu.Lock()
		d.finish(c, true)
		d.mu.Unlock()
		return
	}
	raw, err := host.SyscallConn()
	d.mu.Lock()
	if err != nil || c.state != stateDialing {
		d.finish(c, true)
		d.mu.Unlock()
		_ = host.Close()
		return
	}
	c.attach(host, raw)
	c.state = stateOpen
	d.counts.fromGuest.Add(1)
	c.say(opResponse)
	d.mu.Unlock()
	c.watch()
}
