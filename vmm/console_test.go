package vmm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
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
	var seen strings.Builder
	v.closed = true
	v.drain(&seen)
	if seen.Len() > viewerBuffer {
		t.Errorf("%d bytes were kept for the viewer", seen.Len())
	}
	if !strings.HasSuffix(seen.String(), line) {
		t.Errorf("what it misses begins in a line: %q", seen.String()[seen.Len()-100:])
	}
	kept := seen.Len()
	v.put([]byte("the rest of a line"))
	v.put([]byte("\nthe next"))
	v.drain(&seen)
	missed := lines*len(line) - kept + len("the rest of a line\n")
	if want := fmt.Sprintf("\r\n[microvm: this viewer was too slow, %d bytes are missing here]\r\nthe next", missed); seen.String()[kept:] != want {
		t.Errorf("then it gets %q, want %q", seen.String()[kept:], want)
	}
}

// A viewer that reads nothing, or hangs up for good while something is on its way
// to it, is no matter to the guest, nor to one that reads.
func TestAViewerThatDoesNotReadHoldsNoOtherUp(t *testing.T) {
	c := NewConsole(nil)
	for range 3 {
		stuck, theirs := net.Pipe()
		defer stuck.Close()
		go c.Attach(t.Context(), theirs)
	}
	ours, theirs := net.Pipe()
	defer ours.Close()
	go c.Attach(t.Context(), theirs)
	for attached := 0; attached < 4; runtime.Gosched() {
		c.mu.Lock()
		attached = len(c.viewers)
		c.mu.Unlock()
	}
	line := []byte(strings.Repeat("x", 998) + "\r\n")
	got := make([]byte, len(line))
	for n := range 2 * viewerBuffer / len(line) {
		c.Write(line)
		if _, err := io.ReadFull(ours, got); err != nil || !bytes.Equal(got, line) {
			t.Fatalf("line %d: %q, %v", n, got, err)
		}
	}
}

// They can be put into a log, whatever the guest has printed.
func TestTheLastLinesAreText(t *testing.T) {
	c := NewConsole(nil)
	if got := c.LastLines(3); !slices.Equal(got, []string{""}) {
		t.Errorf("of nothing: %q", got)
	}
	io.WriteString(c, "first\r\n\x1b[31m<0>r\xffed\x1b[0m\a\r\n"+strings.Repeat("é", 300)+"\r\nlast\r\n\r\n")
	want := []string{"[31m<0>red[0m", strings.Repeat("é", 128), "last"}
	if got := c.LastLines(3); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
