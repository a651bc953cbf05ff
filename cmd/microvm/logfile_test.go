package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// logAt is what is left of a log.
func logAt(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := readLog(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestALogKeepsItsLastLines: however much is logged, the file takes no more room
// than it may, the last lines are there whole, and who follows misses none.
func TestALogKeepsItsLastLines(t *testing.T) {
	const most, lines = 64 << 10, 20000
	path := filepath.Join(t.TempDir(), "log")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintln(f, "line of before")
	log, err := newLogFile(f, most)
	if err != nil {
		t.Fatal(err)
	}
	follower, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer follower.Close()
	followed, want := new(strings.Builder), new(strings.Builder)
	want.WriteString("line of before\n")
	for i := range lines {
		line := fmt.Sprintf("line %d\n", i)
		want.WriteString(line)
		if n, err := io.WriteString(log, line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
		if i%100 == 0 {
			if _, err := io.Copy(followed, follower); err != nil {
				t.Fatal(err)
			}
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		if took := st.Blocks * 512; took > most+2*4096 {
			t.Fatalf("the log takes %d bytes after line %d, of %d", took, i, most)
		}
	}
	if _, err := io.Copy(followed, follower); err != nil {
		t.Fatal(err)
	}
	if followed.String() != want.String() {
		t.Errorf("who follows has %d bytes of %d", followed.Len(), want.Len())
	}

	if got := logAt(t, path); len(got) < most/4 || !strings.HasPrefix(got, "line ") || !strings.HasSuffix(want.String(), "\n"+got) {
		t.Errorf("what is left: %d bytes, %.40q...", len(got), got)
	}
}

func TestALogIsReadFromItsStart(t *testing.T) {
	for _, text := range []string{"", "one line\n", "two\nlines\n"} {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := logAt(t, path); got != text {
			t.Errorf("%q, want %q", got, text)
		}
	}
}
