package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// startOn starts microvm on a terminal of its own, and returns what is typed
// there and what is shown.
func (h *host) startOn(terminal, tty *os.File, args ...string) (p *process, shown *transcript) {
	h.t.Helper()
	cmd := h.command(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	shown = newTranscript()
	p = &process{t: h.t, h: h, cmd: cmd, stdout: shown, stderr: shown, ended: make(chan struct{}), patience: patience}
	go func() { _, _ = io.Copy(shown, terminal) }() // it ends with the terminal
	go func() {
		_ = cmd.Wait() // the status is in ProcessState
		close(p.ended)
	}()
	h.t.Cleanup(p.kill)
	return p, shown
}

// A terminal can be left, and is as it was, even if the guest takes nothing of
// what is typed: here it has not come yet.
func TestAConsoleCanBeLeftWhoeverDoesNotListen(t *testing.T) {
	h := newHost(t)
	vm := h.start("receive", "--listen", "tcp:127.0.0.1:0", "--name", "a", "--console", "socket")
	vm.awaitLine("tcp:")
	terminal, tty := openTerminal(t, 80, 24)
	before, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	viewer, _ := h.startOn(terminal, tty, "console", "a")
	viewer.awaitOutput("console of a; Ctrl-a x leaves]")
	go func() {
		_, _ = io.WriteString(terminal, strings.Repeat("x", 1<<20)+"\x01x") // it ends with the terminal
	}()
	viewer.wait(0)
	after, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal is left as %+v, was %+v", after, before)
	}
	vm.runs()
}

// A console says why it ends: what its VM's process says, or that that could not;
// with --reconnect it goes on with the next VM of the name.
func TestAConsoleSaysWhyItEndsAndMayWaitForMore(t *testing.T) {
	h := newHost(t)
	receive := func() *process {
		p := h.start("receive", "--listen", "tcp:127.0.0.1:0", "--name", "a", "--console", "socket")
		p.awaitLine("tcp:")
		return p
	}
	faithful := h.start("console", "a", "--reconnect")
	faithful.awaitError("waiting for VM a")
	first := receive()
	plain := h.start("console", "a")
	awaitViewers(t, first, 2)
	first.kill()
	plain.wait(exitFailure)
	if said := plain.stderr.String(); !strings.Contains(said, "killed or crashed") {
		t.Errorf("it says %q", said)
	}
	faithful.awaitError("killed or crashed")

	second := receive()
	plain = h.start("console", "a")
	awaitViewers(t, second, 2)
	second.signal(unix.SIGTERM)
	second.wait(exitFailure)
	plain.wait(0)
	for _, p := range []*process{plain, faithful} {
		p.awaitOutput("\r\n[microvm: ")
	}
	faithful.runs()
	h.must(0, "ps", "--clean")
}

// awaitViewers returns when so many consoles are connected to a process.
func awaitViewers(t *testing.T, p *process, n int) {
	t.Helper()
	askUntil(t, patience, func() (bool, string) {
		unixSockets, err := os.ReadFile("/proc/net/unix")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(unixSockets), p.h.root+"/a/console.sock") >= 1+n,
			fmt.Sprintf("%d consoles are not connected:\n%s", n, unixSockets)
	})
}
