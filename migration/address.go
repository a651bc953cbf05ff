package migration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Address is where a destination listens: "tcp:HOST:PORT" or "unix:PATH", or
// "fd:N", a listener that it was passed, or "fd:N,M", connections that its source
// was passed.
type Address struct {
	Network string // "tcp", "unix" or "fd"
	Target  string // HOST:PORT, a path, or numbers
}

// ParseAddress parses what a person wrote, of an address that can be dialled.
func ParseAddress(s string) (Address, error) {
	network, target, _ := strings.Cut(s, ":")
	switch network {
	case "tcp":
		if _, _, err := net.SplitHostPort(target); err != nil {
			return Address{}, fmt.Errorf("address %q: %w; write tcp:HOST:PORT", s, err)
		}
	case "unix":
		if target == "" {
			return Address{}, fmt.Errorf("address %q: no path; write unix:PATH", s)
		}
		if len(target) >= len(unix.RawSockaddrUnix{}.Path) {
			return Address{}, fmt.Errorf("address %q: the path has %d bytes, a unix socket's at most %d", s, len(target), len(unix.RawSockaddrUnix{}.Path)-1)
		}
	default:
		return Address{}, fmt.Errorf("address %q: write tcp:HOST:PORT or unix:PATH", s)
	}
	return Address{network, target}, nil
}

func (a Address) String() string { return a.Network + ":" + a.Target }

// Listen opens the listener of a destination. Port 0 has the kernel choose
// one; [ListenAddress] tells which.
func Listen(ctx context.Context, a Address) (net.Listener, error) {
	if a.Network == networkFD {
		return listenFD(a)
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, a.Network, a.Target)
	if err != nil {
		if a.Network == "unix" && errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("listen on %s: the path exists; another destination may be there, else remove it: %w", a, err)
		}
		return nil, fmt.Errorf("listen on %s: %w", a, err)
	}
	if a.Network == "unix" {
		// Whoever can connect can hand this host a VM to run.
		if err := os.Chmod(a.Target, 0o600); err != nil {
			ln.Close()
			return nil, fmt.Errorf("listen on %s: %w", a, err)
		}
	}
	return ln, nil
}

// ListenAddress gives the address under which ln can be dialled.
func ListenAddress(ln net.Listener) Address {
	return Address{ln.Addr().Network(), ln.Addr().String()}
}
