//go:build linuxguest

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"microvm/hack/lab/labvm"
	"microvm/vmm"
	"microvm/vmm/client"
)

// withVsockProgram is the initramfs of the lab's guests, with the program vsock
// in it (hack/lab/vsock): an archive that is not compressed may stand before it.
func withVsockProgram(t *testing.T, initrd string) string {
	t.Helper()
	program := os.Getenv(labvm.EnvGuestVsock)
	if program == "" {
		t.Skipf("%s is not set; run this test in the lab: make lab", labvm.EnvGuestVsock)
	}
	var all bytes.Buffer
	a := labvm.NewArchive(&all)
	err := errors.Join(a.Copy("bin/vsock", program), a.Close())
	rest, readErr := os.ReadFile(initrd)
	path := filepath.Join(t.TempDir(), "initrd")
	if err := errors.Join(err, readErr, os.WriteFile(path, append(all.Bytes(), rest...), 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

// dialGuest connects to a guest's port, as a program of the host.
func (h *host) dialGuest(uds string, port int) net.Conn {
	h.t.Helper()
	c := h.program(uds)
	if err := c.SetDeadline(time.Now().Add(linuxPatience)); err != nil {
		h.t.Fatal(err)
	}
	fmt.Fprintf(c, "CONNECT %d\n", port)
	line := make([]byte, 0, 32)
	for b := make([]byte, 1); !bytes.HasSuffix(line, []byte("\n")) && len(line) < cap(line); {
		if _, err := c.Read(b); err != nil {
			h.t.Fatalf("CONNECT %d: %v after %q", port, err, line)
		}
		line = append(line, b...)
	}
	if !strings.HasPrefix(string(line), "OK ") {
		h.t.Fatalf("CONNECT %d: %q", port, line)
	}
	return c
}

// echoes checks that a guest that sends back what comes does so.
func echoes(t *testing.T, c net.Conn, n int) {
	t.Helper()
	want, got := make([]byte, n), make([]byte, n)
	rand.NewChaCha8([32]byte{2}).Read(want)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		sent <- err
	}()
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the guest sends back something else: %v", err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

// listenFor listens for a guest at a port, and hands on who connects.
func (h *host) listenFor(uds string, port int) <-chan net.Conn {
	h.t.Helper()
	l, err := net.Listen("unix", fmt.Sprintf("%s_%d", uds, port))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { l.Close() })
	conns := make(chan net.Conn)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c
		}
	}()
	return conns
}

// guestSends has the guest send bytes to a port, which come back.
func (h *host) guestSends(p *process, uds string, port, n int) {
	h.t.Helper()
	conns := h.listenFor(uds, port)
	p.enter(fmt.Sprintf("vsock send %d %d", port, n))
	c := <-conns
	if _, err := io.Copy(c, c); err != nil {
		h.t.Fatal(err)
	}
	c.Close()
	p.awaitLine(fmt.Sprintf("vsock %d bytes came back from port %d", n, port))
}

// resized has the console get a size, and the guest say that it has.
func (h *host) resized(name string, p *process, size vmm.ConsoleSize) {
	h.t.Helper()
	c, err := client.Dial(name)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := c.ResizeConsole(h.t.Context(), size); err != nil {
		h.t.Fatal(err)
	}
	p.enter(fmt.Sprintf("while [ \"$(stty size)\" != '%d %d' ]; do sleep 0.05; done; echo resized: $(stty size)", size.Rows, size.Columns))
	p.awaitLine(fmt.Sprintf("resized: %d %d", size.Rows, size.Columns))
}

// TestLinuxTalksThroughVsockAndHVC0WhereItMoves: streams in both directions, a
// shell on hvc0 whose size follows; after a postcopy migration streams that were
// open are reset on both sides, new ones are made, and the shell goes on.
func TestLinuxTalksThroughVsockAndHVC0WhereItMoves(t *testing.T) {
	kernel, initrd := linuxFiles(t)
	h := newHost(t)
	here, there := filepath.Join(h.root, "here.sock"), filepath.Join(h.root, "b", "vsock.sock")
	source := h.start("run", "--name", "a", "-k", kernel, "-i", withVsockProgram(t, initrd), "-m", "128M", "-c", "2",
		"-p", linuxCmdline+" mv.job=shell mv.tty=hvc0", "--virtio-console", "--vsock", "cid=42,path="+here)
	source.patience = linuxPatience
	source.awaitLine("GUEST READY cpus 2 ")
	source.enter("echo answer $((6 * 7)) on $(tty)")
	source.awaitLine("answer 42 on /dev/hvc0")
	h.resized("a", source, vmm.ConsoleSize{Columns: 133, Rows: 44})

	source.enter("vsock echo 52 &")
	source.awaitOutput("vsock echoes on port 52")
	open := h.dialGuest(here, 52)
	echoes(t, open, 300_000)
	h.guestSends(source, here, 80, 300_000)
	held := h.listenFor(here, 81)
	source.enter("vsock hold 81 &")
	holding := <-held
	source.awaitOutput("vsock holds port 81")

	dest, addr := h.receive("--name", "b")
	dest.patience = linuxPatience
	migrate := h.start("migrate", "a", addr, "--postcopy")
	migrate.patience = linuxPatience
	migrate.wait(0)
	source.wait(0)
	for name, c := range map[string]net.Conn{"of the host": open, "of the guest": holding} {
		if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("a stream %s, at the source: %d bytes, %v", name, n, err)
		}
	}
	dest.awaitOutput("vsock hold ended: true")
	echoes(t, h.dialGuest(there, 52), 300_000)
	h.guestSends(dest, there, 82, 300_000)
	dest.enter("echo still $(stty size) on $(tty)")
	dest.awaitLine("still 44 133 on /dev/hvc0")
	h.resized("b", dest, vmm.ConsoleSize{Columns: 80, Rows: 24})
	c, err := client.Dial("b")
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Stats(t.Context())
	if err != nil || s.Devices[0].ID != "vsock0" || s.Devices[0].Counts.Of("transmit").Bytes < 600_000 || s.Devices[0].Counts.Of("transmit").Errors != 0 {
		t.Errorf("%+v, %v", s.Devices, err)
	}
	dest.enter("poweroff -f")
	dest.wait(0)
	if text := screens(source, dest); strings.Contains(text, "VSOCK BAD") {
		t.Error("the guest complains")
	}
}
