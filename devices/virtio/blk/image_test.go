package blk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func blocksOf(t *testing.T, path string) int64 {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Blocks
}

func open(t *testing.T, path string, readOnly bool) *Image {
	t.Helper()
	image, err := OpenImage(path, readOnly)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { image.Close() })
	return image
}

// TestImageHasOneWriter: two VMs that write to a disk destroy it.
func TestImageHasOneWriter(t *testing.T) {
	path, _ := newImage(t, t.TempDir(), 1<<20)
	one, other, reader, second := open(t, path, false), open(t, path, false), open(t, path, true), open(t, path, true)
	lock := func(image *Image, want bool) {
		t.Helper()
		err := image.Lock()
		if (err == nil) != want {
			t.Errorf("locked: %v, want that it works: %t", err, want)
		}
		if err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("%v does not name the disk", err)
		}
	}
	lock(one, true)
	lock(one, true)
	lock(other, false)
	lock(reader, false)
	if err := one.Unlock(); err != nil {
		t.Fatal(err)
	}
	lock(reader, true)
	lock(second, true)
	lock(one, false)
	if err := reader.Unlock(); err != nil {
		t.Fatal(err)
	}
	lock(other, false)
	second.Close() // a process that ends gives it up
	lock(other, true)
}

func TestWhatIsNoDiskIsRefused(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, make([]byte, 511), 0o600); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file",
		empty:                      "511 bytes",
		pipe:                       "has to be a regular file",
		"/dev/null":                "has to be a regular file",
		dir:                        "has to be a regular file",
	} {
		image, err := OpenImage(path, path == pipe) // to read from a pipe waits for a writer
		if err == nil {
			image.Close()
			t.Errorf("%s was opened", path)
		} else if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%v: want %q in it", err, want)
		}
	}
}
