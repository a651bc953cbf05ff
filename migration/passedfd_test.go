package migration

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// passed gives a descriptor of f as whoever starts a destination would pass it.
func passed(t *testing.T, f interface{ File() (*os.File, error) }) Address {
	t.Helper()
	file, err := f.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	n, err := unix.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	a, err := ParseListenAddress("fd:" + strconv.Itoa(n))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A destination that is given its listener, by systemd say, is as any other: it
// can be found, and found again when the connections broke.
func TestADestinationMayBePassedItsListener(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			target := "127.0.0.1:0"
			if network == "unix" {
				target = filepath.Join(t.TempDir(), "in.sock")
			}
			ours, err := net.Listen(network, target)
			if err != nil {
				t.Fatal(err)
			}
			a := passed(t, ours.(interface{ File() (*os.File, error) }))
			ln, err := Listen(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			if got := ListenAddress(ln); got.Network != network || got.Target != ours.Addr().String() {
				t.Errorf("it says that it listens on %s, which is %s", got, ours.Addr())
			}
			l := &ledger{}
			d := NewDestination(buildOwned(t, l, nil), DestinationOptions{Recover: time.Minute, Log: quietLog(t)})
			done := make(chan error, 1)
			go func() { done <- d.Receive(t.Context(), ln) }()
			s := send(t, l, newSwallower(t, ListenAddress(ln), "RUNNING", true), Options{Verify: true, Recover: time.Minute})
			if err := s.run(); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil || s.report.Recoveries != 1 {
				t.Errorf("Receive: %v, after %d recoveries", err, s.report.Recoveries)
			}
		})
	}
}

func TestADescriptorThatIsNoListenerIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"fd:":      "write fd:N",
		"fd:x":     "write fd:N",
		"fd:-1":    "write fd:N",
		"fd:1":     "stdin, stdout and stderr",
		"fd:1e3":   "write fd:N",
		"udp:1:1":  "write tcp:HOST:PORT",
		"fd:2<<31": "write fd:N",
	} {
		_, err := ParseListenAddress(text)
		says(t, err, want)
	}
	// A source has to dial.
	_, err := ParseAddress("fd:3")
	says(t, err, "write tcp:HOST:PORT or unix:PATH")

	refused := func(a Address, want string) {
		t.Helper()
		_, err := Listen(t.Context(), a)
		says(t, err, a.String(), want)
		if n, _ := strconv.Atoi(a.Target); want != "bad file descriptor" {
			unix.Close(n)
		}
	}
	refused(Address{networkFD, "9999"}, "bad file descriptor")
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.Dup(int(file.Fd()))
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	refused(Address{networkFD, strconv.Itoa(n)}, "socket operation on non-socket")
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	refused(passed(t, udp.(*net.UDPConn)), "not a stream socket")
	// A connection carries one channel only.
	addr := rawListener(t, func(ln net.Listener) { accept(t, ln) })
	refused(passed(t, dial(t, addr).(*net.TCPConn)), "not a socket that listens")
}
