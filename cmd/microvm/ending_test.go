package main

import (
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"microvm/migration"
)

// Whoever starts a destination may have opened its socket, as systemd does.
func TestADestinationIsPassedItsSocket(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", busy)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	dest := h.startWith([]*os.File{file}, "receive", "--listen", "fd:3", "--name", "b")
	file.Close()
	addr := dest.awaitLine("tcp:127.0.0.1:")
	ln.Close() // it has its own
	if want := migration.ListenAddress(ln).String(); addr != want {
		t.Errorf("it says that it listens on %s, which is %s", addr, want)
	}
	checkCompleted(t, h.migrate("a", addr), 256<<20, 2)
	h.endsThere(source, dest, "b")

	h.must(exitUsage, "receive", "--listen", "fd:socket")
	if r := h.must(exitFailure, "receive", "--listen", "fd:77"); !strings.Contains(r.stderr, "fd:77") || r.stdout != "" {
		t.Errorf("it says: %s%s", r.stdout, r.stderr)
	}
}

// A VM that ends on its way out ends everywhere, and is not to be had at the
// destination as it was before.
func TestAVMThatEndsOnItsWayOutEndsEverywhere(t *testing.T) {
	for _, how := range []string{"is stopped", "is killed by a signal", "ends by itself"} {
		for _, message := range []string{"PONG", "LOADED"} {
			if how == "ends by itself" && message == "LOADED" {
				continue // it is paused then
			}
			t.Run(how+" before "+message, func(t *testing.T) {
				h := newHost(t)
				guest := modest
				if how == "ends by itself" {
					guest += " stop=20"
				}
				source := h.boot("a", guest)
				dest, addr := h.receive("--name", "b", "--recover", "1s")
				relay := newRelay(t, addr, message, 0)
				migrate := h.start("migrate", "a", relay.addr, "--postcopy")
				relay.awaitHeld()
				switch how {
				case "is stopped":
					h.must(0, "stop", "a", "--force")
				case "is killed by a signal":
					source.signal(unix.SIGTERM)
				}
				source.wait(0)
				relay.letPass()
				migrate.wait(exitFailure)
				if text := migrate.stderr.String(); !strings.Contains(text, "VM a has ended") && !strings.Contains(text, "does not answer any more") {
					t.Errorf("whoever asked for the migration hears: %s", text)
				}
				dest.wait(exitFailure)
				if text := screens(dest); text != "" {
					t.Errorf("the guest ran at the destination: %q", text)
				}
				if got := h.must(0, "ps", "-q").stdout; got != "" {
					t.Errorf("ps lists %q", got)
				}
			})
		}
	}
}
