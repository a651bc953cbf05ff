package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"microvm/migration"
	"microvm/vmm"
	"microvm/vmm/client"
)

// connected are sockets that this process has connected to addr, as it would
// pass them; its own ends are closed with the test.
func connected(t *testing.T, addr string, n int) (files []*os.File) {
	t.Helper()
	network, target, _ := strings.Cut(addr, ":")
	for range n {
		c, err := net.Dial(network, target)
		if err != nil {
			t.Fatal(err)
		}
		f, err := c.(interface{ File() (*os.File, error) }).File()
		c.Close()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// startPassed starts a migrate that is passed n connections to addr, and keeps
// none of them here.
func (h *host) startPassed(addr string, n int, vm string, flags ...string) *process {
	h.t.Helper()
	files := connected(h.t, addr, n)
	numbers := "3"
	for i := 1; i < n; i++ {
		numbers += fmt.Sprintf(",%d", 3+i)
	}
	p := h.startWith(files, append([]string{"migrate", vm, "fd:" + numbers, "--report", "json"}, flags...)...)
	for _, f := range files {
		f.Close()
	}
	return p
}

// Whoever may connect to the destination need not be whoever moves the VM, and
// the VM's process is another one still.
func TestASourceIsPassedItsConnections(t *testing.T) {
	h := newHost(t)
	h.wander([]string{"a", "b", "c"}, nil, func(step int, name, addr string) {
		if step == 0 {
			refusePassed(h)
		}
		c := []struct {
			channels int
			flags    []string
		}{
			{2, []string{"--postcopy", "--verify"}},
			{6, []string{"--mode", "hybrid", "--connections", "4", "--verify"}},
		}[step]
		m := h.startPassed(addr, c.channels, name, c.flags...)
		m.wait(0)
		r := readReport(t, m.stdout.String())
		if r.Result != migration.ResultCompleted || r.Verified == nil || !*r.Verified || r.Channels != c.channels {
			t.Errorf("report: %+v", r)
		}
	})
}

// refusePassed tries what cannot be a migration of VM a, which goes on.
func refusePassed(h *host) {
	h.t.Helper()
	for _, c := range []struct {
		dest   string
		flags  string
		status int
		want   string
	}{
		{"fd:3", "", exitUsage, "main and urgent"},
		{"fd:3,4", "--connections 4", exitUsage, "main, urgent and 4 for memory"},
		{"fd:3,3", "", exitUsage, "twice"},
		{"fd:2,3", "", exitUsage, "stdin, stdout and stderr"},
		{"fd:3,x", "", exitUsage, "write fd:N"},
		{"fd:3,4", "--tls-dir /", exitUsage, "TLS is for tcp"},
		{"fd:90,91", "", exitFailure, "fd:90: bad file descriptor; pass sockets that are connected"},
	} {
		r := h.must(c.status, append([]string{"migrate", "a", c.dest, "--postcopy"}, strings.Fields(c.flags)...)...)
		if !strings.Contains(r.stderr, c.want) {
			h.t.Errorf("%s %s: it says %s", c.dest, c.flags, r.stderr)
		}
	}
	// Sockets, but none that is connected to a destination.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	defer ln.Close()
	listening, err := ln.(*net.TCPListener).File()
	if err != nil {
		h.t.Fatal(err)
	}
	defer listening.Close()
	p := h.startWith([]*os.File{listening, listening}, "migrate", "a", "fd:3,4", "--postcopy")
	p.wait(exitFailure)
	if !strings.Contains(p.stderr.String(), "not connected") {
		h.t.Errorf("it says %s", p.stderr)
	}
	// The VM's process does not believe what it is told.
	c, err := client.Dial("a")
	if err != nil {
		h.t.Fatal(err)
	}
	_, err = c.Migrate(h.t.Context(), vmm.MigrateRequest{Destination: "fd:3,4"}, nil)
	if err == nil || !strings.Contains(err.Error(), "0 descriptors came with the request") {
		h.t.Errorf("without descriptors: %v", err)
	}
}

// When they break once the guest runs there, nobody here can make them again:
// the migration is paused at once, and goes on at an address that can be dialled.
func TestConnectionsThatWerePassedAndBreak(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", busy)
	dest, addr := h.receive("--name", "b")
	relay := newRelay(t, addr, "COMPLETE", 0)
	m := h.startPassed(relay.addr, 2, "a", "--postcopy", "--recover", "1h")
	relay.awaitHeld()
	relay.cut()
	relay.letPass()
	m.wait(exitPaused)
	if r := readReport(t, m.stdout.String()); !strings.Contains(r.Error, "--resume tcp:HOST:PORT") {
		t.Errorf("it does not say what to do: %s", r.Error)
	}
	if r := h.run("migrate", "a", "--resume"); r.status == 0 || !strings.Contains(r.stderr, "--resume tcp:HOST:PORT") {
		t.Errorf("resumed by nothing: status %d, %s", r.status, r.stderr)
	}
	h.must(0, "migrate", "a", addr, "--resume")
	h.endsThere(source, dest, "b")
}
