package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"microvm/vmm"
	"microvm/vmm/client"
)

// openTerminal gives both ends of a pseudo-terminal.
func openTerminal(t *testing.T, columns, rows uint16) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("no pseudo-terminal: %v; mount devpts on /dev/pts", err)
	}
	t.Cleanup(func() { master.Close() })
	resize(t, master, columns, rows)
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func resize(t *testing.T, terminal *os.File, columns, rows uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		t.Fatal(err)
	}
}

// awaitSize waits until a VM's virtio console has a size.
func (h *host) awaitSize(name string, columns, rows uint64) {
	h.t.Helper()
	c, err := client.Dial(name)
	if err != nil {
		h.t.Fatal(err)
	}
	askUntil(h.t, patience, func() (bool, string) {
		s, err := c.Stats(h.t.Context())
		if err != nil {
			h.t.Fatal(err)
		}
		gauges := s.Devices[len(s.Devices)-1].Counts.Gauges
		return gauges["columns"] == columns && gauges["rows"] == rows,
			fmt.Sprintf("the console's size is %v, want %d columns and %d rows", gauges, columns, rows)
	})
}

// TestTheGuestsConsoleHasTheSizeOfTheTerminal that is attached to it: the VM's
// own, then another's, and what it is resized to; and a guest that has no driver
// for it hears what is typed on its serial port.
func TestTheGuestsConsoleHasTheSizeOfTheTerminal(t *testing.T) {
	h := newHost(t)
	needKVM(t)
	own, tty := openTerminal(t, 91, 31)
	vm := h.command("run", "--name", "a", "--virtio-console", "-p", "beat=20")
	vm.Env = append(vm.Env, vmm.StateDirEnv+"="+h.root)
	vm.Stdin, vm.Stdout, vm.Stderr = tty, tty, tty
	vm.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: unix.SIGKILL}
	if err := vm.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = vm.Process.Kill() }) // it may have ended
	shown := newTranscript()
	go func() { _, _ = io.Copy(shown, own) }() // it ends with the terminal
	await := func(words string) {
		t.Helper()
		late := time.After(patience)
		for {
			text, more := shown.read()
			if strings.Contains(text, words) {
				return
			}
			select {
			case <-more:
			case <-late:
				t.Fatalf("no %q: %s", words, text)
			}
		}
	}
	await("beat 2 ")
	h.awaitSize("a", 91, 31)
	resize(t, own, 92, 32)
	h.awaitSize("a", 92, 32)

	other, tty := openTerminal(t, 101, 41)
	viewer := h.command("console", "a")
	viewer.Env = append(viewer.Env, vmm.StateDirEnv+"="+h.root)
	viewer.Stdin, viewer.Stdout, viewer.Stderr = tty, tty, tty
	viewer.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: unix.SIGKILL}
	if err := viewer.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, other) }() // it ends with the terminal
	h.awaitSize("a", 101, 41)
	resize(t, other, 102, 42)
	h.awaitSize("a", 102, 42)
	if _, err := io.WriteString(other, "typed\r"); err != nil {
		t.Fatal(err)
	}
	await("echo ")
	h.must(0, "stop", "a", "--force")
	if err := vm.Wait(); err != nil {
		t.Error(err)
	}
	_ = viewer.Wait() // it ends with the VM; how is another test's
}
