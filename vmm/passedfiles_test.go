package vmm

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// servePassing answers requests on a socket with how many files came, and writes
// the place of each into it.
func servePassing(t *testing.T) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), apiSocket)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ConnContext: withPassing, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		files := passedFiles(r)
		for i, f := range files {
			fmt.Fprint(f, i)
		}
		closeFiles(files)
		fmt.Fprint(w, len(files))
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Serve(passingListener{ln})
	}()
	t.Cleanup(func() {
		s.Close()
		<-ended
	})
	return socket
}

// pipes gives the ends that are written to, and what reads from the others.
func pipes(t *testing.T, n int) (ends []*os.File, read func(i int) string) {
	t.Helper()
	var readers []*os.File
	for range n {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		readers, ends = append(readers, r), append(ends, w)
	}
	return ends, func(i int) string {
		t.Helper()
		text, err := io.ReadAll(readers[i]) // to the end: nobody has it open any more
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
}

func TestFilesThatArePassedComeInOrderAndAreClosedHere(t *testing.T) {
	conn, err := net.Dial("unix", servePassing(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ends, read := pipes(t, maxPassed)
	var fds []int
	for _, f := range ends {
		fds = append(fds, int(f.Fd()))
	}
	if _, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), unix.UnixRights(fds...), nil); err != nil {
		t.Fatal(err)
	}
	closeFiles(ends)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || string(text) != fmt.Sprint(maxPassed) {
		t.Errorf("%q files came: %v", text, err)
	}
	for i := range ends {
		if got := read(i); got != fmt.Sprint(i) {
			t.Errorf("file %d: %q", i, got)
		}
	}
}

// A client that passes what nobody wants, or more than there may be, has the
// VM's process keep none of it.
func TestFilesThatNobodyTakesAreClosed(t *testing.T) {
	socket := servePassing(t)
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const each, times = 15, 3
	ends, read := pipes(t, each*times)
	for i := range times {
		var fds []int
		for _, f := range ends[i*each : (i+1)*each] {
			fds = append(fds, int(f.Fd()))
		}
		text := []string{"GET / HTTP/1.1\r\n", "Host: a\r\n", "\r\n"}[i]
		if _, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte(text), unix.UnixRights(fds...), nil); err != nil {
			t.Fatal(err)
		}
	}
	closeFiles(ends)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(resp.Body); err != nil || string(text) != fmt.Sprint(maxPassed) {
		t.Errorf("%q files were kept: %v", text, err)
	}
	for i := range each * times {
		want := ""
		if i < maxPassed {
			want = fmt.Sprint(i)
		}
		if got := read(i); got != want {
			t.Errorf("file %d: %q, want %q", i, got, want)
		}
	}
	// These come, and then the connection goes.
	ends, read = pipes(t, 1)
	if _, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte("G"), unix.UnixRights(int(ends[0].Fd())), nil); err != nil {
		t.Fatal(err)
	}
	closeFiles(ends)
	conn.Close()
	if got := read(0); got != "" {
		t.Errorf("%q", got)
	}
}

// TestAReadThatFailsHasReadNothing: net/http panics if it has read less.
func TestAReadThatFailsHasReadNothing(t *testing.T) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "api")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := passingListener{l}.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 8)); n != 0 || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}
