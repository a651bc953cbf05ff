package migration

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// networkFD is the network of an address that is open file descriptors, which
// whoever started this process has passed to it: of a destination one, a socket
// that listens already, of a source several that are connected already.
const networkFD = "fd"

// ParseListenAddress is ParseAddress for a destination, which may also be given
// "fd:N".
func ParseListenAddress(s string) (Address, error) {
	network, target, _ := strings.Cut(s, ":")
	if network != networkFD {
		return ParseAddress(s)
	}
	if _, err := parseFD(s, target); err != nil {
		return Address{}, err
	}
	return Address{networkFD, target}, nil
}

// listenFD makes a listener of a socket that was passed, which is its own from
// then on.
func listenFD(a Address) (net.Listener, error) {
	n, err := strconv.Atoi(a.Target)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", a, err)
	}
	// The type of a socket, and whether it listens.
	for _, want := range []struct {
		option, value int
		remedy        string
	}{
		{unix.SO_TYPE, unix.SOCK_STREAM, "a stream socket"},
		{unix.SO_ACCEPTCONN, 1, "a socket that listens"},
	} {
		got, err := unix.GetsockoptInt(n, unix.SOL_SOCKET, want.option)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w; pass this process a socket that listens as descriptor %d", a, err, n)
		}
		if got != want.value {
			return nil, fmt.Errorf("listen on %s: it is not %s; pass one that is bound and listens, as systemd's socket units do", a, want.remedy)
		}
	}
	f := os.NewFile(uintptr(n), a.String())
	defer f.Close() // the listener has a duplicate
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", a, err)
	}
	return ln, nil
}
