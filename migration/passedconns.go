package migration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"microvm/migration/wire"
)

// ParseDestination is ParseAddress for a source, which may also be given
// "fd:N,M[,...]": sockets that somebody has connected to the destination, one
// for each channel, in the order main, urgent, multi 0 and on. Connections
// cannot be made again from them: when they break, the migration is paused until
// it is given an address that can be dialled.
func ParseDestination(s string) (Address, error) {
	network, target, _ := strings.Cut(s, ":")
	if network != networkFD {
		return ParseAddress(s)
	}
	seen := map[int]bool{}
	for text := range strings.SplitSeq(target, ",") {
		n, err := parseFD(s, text)
		if err != nil {
			return Address{}, err
		}
		if seen[n] {
			return Address{}, fmt.Errorf("address %q: %d stands there twice; each channel needs a socket of its own", s, n)
		}
		seen[n] = true
	}
	if len(seen) > multiChannels+wire.MaxMulti {
		return Address{}, fmt.Errorf("address %q: %d sockets, a migration has %d connections at most", s, len(seen), multiChannels+wire.MaxMulti)
	}
	return Address{networkFD, target}, nil
}

// CheckPassed refuses an address of passed sockets that are not as many as a
// migration over so many connections (0 is 1) has channels. Other addresses are
// fine.
func (a Address) CheckPassed(connections int) error {
	if a.Network != networkFD {
		return nil
	}
	want, which := multiChannels, "main and urgent"
	if connections > 1 {
		want += connections
		which = fmt.Sprintf("main, urgent and %d for memory", connections)
	}
	if got := a.Passed(); got != want {
		return fmt.Errorf("%s: a migration over %d connections has %d channels, %s: pass so many sockets, each connected to the destination (fd:N,M,...); here are %d",
			a, max(1, connections), want, which, got)
	}
	return nil
}

// CheckSourceTLS is CheckTLS for a source.
func (a Address) CheckSourceTLS() error {
	if a.Network == networkFD {
		return fmt.Errorf("TLS is for tcp: nobody here knows whose name to look for behind %s, which was connected elsewhere", a)
	}
	return a.CheckTLS()
}

// Passed is how many sockets an address names that were passed to a source: 0 of
// one that can be dialled.
func (a Address) Passed() int {
	if a.Network != networkFD {
		return 0
	}
	return strings.Count(a.Target, ",") + 1
}

// OpenPassed gives the sockets of an address that ParseDestination made, in its
// order, to be passed on to the process of the source: none if they can be
// dialled. They are the caller's. Errors say which of them is no connection.
func (a Address) OpenPassed() ([]*os.File, error) {
	if a.Network != networkFD {
		return nil, nil
	}
	var files []*os.File
	for text := range strings.SplitSeq(a.Target, ",") {
		n, err := parseFD(a.String(), text)
		if err == nil {
			err = checkConnected(n, networkFD+":"+text)
		}
		if err != nil {
			return nil, err
		}
		files = append(files, os.NewFile(uintptr(n), networkFD+":"+text))
	}
	return files, nil
}

// PassedConns makes the connections of Options.Passed of such files, which it
// takes over whatever happens.
func PassedConns(files []*os.File) (conns []net.Conn, err error) {
	defer func() {
		for _, f := range files {
			f.Close() // the connection has a duplicate
		}
		if err != nil {
			passedConns(conns).close()
		}
	}()
	for i, f := range files {
		what := fmt.Sprintf("passed socket %d", i+1)
		if err := checkConnected(int(f.Fd()), what); err != nil {
			return conns, err
		}
		c, err := net.FileConn(f)
		if err != nil {
			return conns, fmt.Errorf("%s: %w", what, err)
		}
		conns = append(conns, c)
	}
	return conns, nil
}

// checkConnected refuses a descriptor that is no connected stream socket.
func checkConnected(fd int, what string) error {
	const remedy = "pass sockets that are connected to the destination"
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return fmt.Errorf("%s: %w; %s", what, err, remedy)
	}
	if kind != unix.SOCK_STREAM {
		return fmt.Errorf("%s: not a stream socket; %s", what, remedy)
	}
	if _, err := unix.Getpeername(fd); err != nil {
		return fmt.Errorf("%s: %w; %s", what, err, remedy)
	}
	return nil
}

// parseFD parses a descriptor in an address.
func parseFD(address, text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("address %q: no descriptor: %w; write fd:N", address, err)
	}
	if n < 3 {
		return 0, fmt.Errorf("address %q: descriptors 0 to 2 are stdin, stdout and stderr; pass a socket as 3 or above", address)
	}
	return int(n), nil
}

var errPassed = errors.New("the connections were passed to this side, which cannot make them again: say where the destination can be dialled (migrate --resume tcp:HOST:PORT)")

// passedConns are connections that somebody has made for a source. Each is used
// once, as the channel that its place stands for.
type passedConns []net.Conn

func (p passedConns) take(h wire.Hello) (net.Conn, error) {
	channel := map[wire.Role]int{wire.RoleMain: mainChannel, wire.RoleUrgent: urgentChannel, wire.RoleMulti: multiChannels}[h.Role] + int(h.Index)
	if channel >= len(p) || p[channel] == nil {
		return nil, errPassed
	}
	c := p[channel]
	p[channel] = nil
	return c, nil
}

// takePassed takes the connections of Options.Passed, if they fit.
func (s *Source) takePassed(dest Address) error {
	if err := dest.CheckPassed(s.opt.Connections); err != nil {
		return err
	}
	if got := len(s.opt.Passed); got != dest.Passed() {
		return fmt.Errorf("%d connections were passed for a migration to %s, which takes %d", got, dest, dest.Passed())
	}
	s.passed = slices.Clone(s.opt.Passed)
	return nil
}

// close closes those that nobody has taken.
func (p passedConns) close() {
	for i, c := range p {
		if c != nil {
			c.Close()
			p[i] = nil
		}
	}
}
