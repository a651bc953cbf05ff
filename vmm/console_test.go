package vmm

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
)

func TestViewerSeesThePastAndTypes(t *testing.T) {
	c := NewConsole(nil)
	io.WriteString(c, "before\r\n")
	ours, theirs := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() { c.Attach(ctx, theirs); close(gone) }()
	read := func(want string) {
		t.Helper()
		b := make([]byte, len(want))
		if _, err := io.ReadFull(ours, b); err != nil || string(b) != want {
			t.Fatalf("the viewer got %q, %v; want %q", b, err, want)
		}
	}
	read("before\r\n")
	io.WriteString(c, "after\r\n")
	read("after\r\n")
	if _, err := io.WriteString(ours, "x"); err != nil {
		t.Fatal(err)
	}
	if p := <-c.input; string(p) != "x" {
		t.Errorf("the guest got %q", p)
	}
	c.Notice("migrated to B")
	cancel()
	read("\r\n[microvm: migrated to B]\r\n")
	if _, err := ours.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	<-gone
	if len(c.viewers) != 0 {
		t.Errorf("%d viewers are left", len(c.viewers))
	}
}

func TestSlowViewerHoldsNobodyUp(t *testing.T) {
	var out strings.Builder
	c := NewConsole(&out)
	v := &viewer{}
	v.cond.L = &v.mu
	c.viewers[v] = struct{}{}
	line := strings.Repeat("x", 1000) + "\n"
	const lines = 1000
	for range lines {
		io.WriteString(c, line)
	}
	if out.Len() != lines*len(line) {
		t.Errorf("the writer that is waited for got %d bytes of %d", out.Len(), lines*len(line))
	}
	if len(c.past) != scrollback {
		t.Errorf("%d bytes are kept, want %d", len(c.past), scrollback)
	}
	var seen strings.Builder
	v.closed = true
	v.drain(&seen)
	if seen.Len() > viewerBuffer {
		t.Errorf("%d bytes were kept for the viewer", seen.Len())
	}
	v.put([]byte("!"))
	v.drain(&seen)
	if !strings.Contains(seen.String(), "bytes are missing here") || !strings.HasSuffix(seen.String(), "!") {
		t.Errorf("the viewer is not told that it missed something: %q", seen.String()[seen.Len()-100:])
	}
}
