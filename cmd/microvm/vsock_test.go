package main

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// program is a program of the host that connects to a VM's vsock device.
func (h *host) program(path string) net.Conn {
	h.t.Helper()
	c, err := net.Dial("unix", path)
	if err == nil {
		err = c.SetDeadline(time.Now().Add(patience))
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	return c
}

// TestProgramsFindAVMByItsVsock in its state directory, or where its user said,
// on the host where it is.
func TestProgramsFindAVMByItsVsock(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", busy, "--vsock", "cid=42")
	stream := h.program(filepath.Join(h.root, "a", "vsock.sock"))
	info, err := h.inspect("a")
	if err != nil || info.Vsock == nil || info.Vsock.CID != 42 {
		t.Errorf("%+v, %v", info, err)
	}
	dest, addr := h.receive("--name", "b", "--vsock", filepath.Join(h.root, "there.sock"))
	h.must(0, "migrate", "a", addr, "--postcopy")
	source.wait(0)
	if n, err := stream.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("a stream at the source: %d bytes, %v", n, err)
	}
	h.program(filepath.Join(h.root, "there.sock"))
	dest.goesOn(2)
	h.must(0, "stop", "b", "--force")
	dest.wait(0)
	for _, name := range []string{"a", "b", "there.sock"} {
		if _, err := os.Stat(filepath.Join(h.root, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want it gone", name, err)
		}
	}
	h.must(2, "run", "--vsock", "cid=2")
}
