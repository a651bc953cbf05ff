package snapshot

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"microvm/migration/wire"
)

const page = wire.PageSize

// write makes a snapshot of two blocks in a new directory: the first has random pages
// here and there, the second pages of zeros only. It gives what is in them.
func write(t testing.TB) (dir string, mem [2][]byte) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "s")
	f, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := NewWriter(f, []Block{{"ram", 5 << 20}, {"more", 3 * page}})
	if err != nil {
		t.Fatal(err)
	}
	mem = [2][]byte{make([]byte, 5<<20), make([]byte, 3*page)}
	noise := rand.NewChaCha8([32]byte{1})
	put := func(first, count uint64) {
		t.Helper()
		part := mem[0][first*page : (first+count)*page]
		_, _ = noise.Read(part)
		if err := w.Write(0, first, part); err != nil {
			t.Fatal(err)
		}
	}
	put(0, 1)
	put(100, 600) // more than one run
	put(200, 3)   // again
	put(1279, 1)
	clear(mem[0][300*page : 800*page]) // some of it was written before
	if err := w.Zero(0, 300, 500); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(Head{Program: "test", VM: "a", Machine: json.RawMessage(`{"format":1}`)}, []byte("the devices")); err != nil {
		t.Fatal(err)
	}
	return dir, mem
}

// readBack reads all that dir has.
func readBack(dir string) (h Head, state []byte, mem [2][]byte, err error) {
	f, err := Open(dir)
	if err != nil {
		return h, nil, mem, err
	}
	defer f.Close()
	r, err := NewReader(f)
	if err != nil {
		return h, nil, mem, err
	}
	if state, err = r.State(); err != nil {
		return h, nil, mem, err
	}
	for i, b := range r.Head.Blocks {
		mem[i] = make([]byte, b.Size)
		for from := uint64(0); ; {
			first, count, err := r.NextData(i, from)
			if err != nil {
				return h, nil, mem, err
			}
			if count == 0 {
				break
			}
			for n := uint64(0); n < count; n += MaxRead / page {
				part := min(count-n, MaxRead/page)
				if err := r.Read(i, first+n, mem[i][(first+n)*page:][:part*page]); err != nil {
					return h, nil, mem, err
				}
			}
			from = first + count
		}
	}
	return r.Head, state, mem, nil
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	dir, want := write(t)
	h, state, mem, err := readBack(dir)
	if err != nil {
		t.Fatal(err)
	}
	if h.VM != "a" || string(state) != "the devices" || !bytes.Equal(mem[0], want[0]) || !bytes.Equal(mem[1], want[1]) {
		t.Errorf("%+v, %q, memory as it was: %v", h, state, bytes.Equal(mem[0], want[0]))
	}
	if vm, err := VM(dir); err != nil || vm != "a" {
		t.Errorf("VM says %q, %v", vm, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "memory"), &st); err != nil {
		t.Fatal(err)
	}
	if wrote := st.Blocks * 512; wrote > 300*page {
		t.Errorf("pages of zeros take room: %d bytes on the disk for 202 pages", wrote)
	}
	if st.Mode&0o077 != 0 {
		t.Errorf("others may read memory: mode %#o", st.Mode)
	}
}

// edit changes a file of a snapshot.
func edit(t testing.TB, dir, name string, change func([]byte) []byte) {
	t.Helper()
	path := filepath.Join(dir, name)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDamageIsFoundAndNamed(t *testing.T) {
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 0x10; return b }
	}
	cut := func(b []byte) []byte { return b[:len(b)-1] }
	replace := func(old, with string) func([]byte) []byte {
		return func(b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(with), 1) }
	}
	for _, c := range []struct {
		name, file string
		change     func([]byte) []byte
		want       string
	}{
		{"a bit of a page", "memory", flip(201*page + 5), `RAM block "ram", page 201`},
		{"a page of zeros that is none", "memory", flip(299*page + page + 5), `page 300`},
		{"a page that has gone", "memory", func(b []byte) []byte { clear(b[1279*page : 1280*page]); return b }, `page 1279`},
		{"memory in a hole that its sum knows", "sums", flip(900 * sumSize), `page 900`},
		{"a sum", "sums", flip(1279 * sumSize), `page 1279`},
		{"the second block", "memory", flip(6<<20 + 2*page), `RAM block "more", page 2`},
		{"less memory", "memory", cut, "cut short"},
		{"more memory", "memory", func(b []byte) []byte { return append(b, 0) }, "cut short, or is of another"},
		{"fewer sums", "sums", cut, "cut short"},
		{"less state", "state", cut, "cut short"},
		{"the state", "state", flip(3), "state is damaged"},
		{"half a head", "machine.json", func(b []byte) []byte { return b[:len(b)/2] }, "unexpected end of JSON"},
		{"no head", "machine.json", func([]byte) []byte { return nil }, "never finished"},
		{"a later format", "machine.json", replace(`"format": 1`, `"format": 2`), "format 2, this program has format 1"},
		{"a field that is not known", "machine.json", replace(`"vm"`, `"wm"`), `"wm"`},
		{"no blocks", "machine.json", replace(`"size": 5242880`, `"size": 0`), "0 bytes"},
		{"a block of half a page", "machine.json", replace(`"size": 5242880`, `"size": 5242881`), "multiple of 4096"},
		{"blocks of too many bytes", "machine.json", replace(`"size": 5242880`, `"size": 9223372036854771712`), "fits a file"},
		{"too much state", "machine.json", replace(`"bytes": 11`, `"bytes": 99999999999`), "at most"},
		{"a long head", "machine.json", func([]byte) []byte { return make([]byte, maxHead+1) }, "more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, _ := write(t)
			edit(t, dir, c.file, c.change)
			if _, _, _, err := readBack(dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\nwant %q in it", err, c.want)
			}
		})
	}
}

func TestWhereNoSnapshotIsMadeOrFound(t *testing.T) {
	dir, _ := write(t)
	if _, err := Create(dir); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("over another: %v", err)
	}
	if _, err := Create(filepath.Join(dir, "a", "b")); err == nil {
		t.Error("in a directory that is not there")
	}
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no snapshot") {
		t.Errorf("in a directory without one: %v", err)
	}
	empty := t.TempDir()
	f, err := Create(empty)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, _, _, err := readBack(empty); !errors.Is(err, ErrUnfinished) {
		t.Errorf("one that was never finished: %v", err)
	}
	if err := Remove(empty); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(empty); !os.IsNotExist(err) {
		t.Errorf("removed, and still there: %v", err)
	}
	// What it is to be written to is passed by another process.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := FromList([]*os.File{r, w, r, w}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("pipes: %v", err)
	}
	if _, err := FromList(nil); err == nil {
		t.Error("no files")
	}
	there, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if _, err := NewWriter(there, []Block{{"ram", page}}); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("files that have something: %v", err)
	}
}

// FuzzHead: whatever machine.json says, what is read of the other files is read where
// they are, and nothing is allocated that they do not have.
func FuzzHead(f *testing.F) {
	dir, _ := write(f)
	good, err := os.ReadFile(filepath.Join(dir, "machine.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"format":1,"blocks":[{"name":"a","size":4096}],"state":{"bytes":0}}`))
	files, err := Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(files.Close)
	f.Fuzz(func(t *testing.T, head []byte) {
		fd, err := unix.MemfdCreate("machine.json", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(fd), "machine.json")
		defer file.Close()
		if _, err := file.Write(head); err != nil {
			t.Fatal(err)
		}
		if _, err := file.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		r, err := NewReader(&Files{file, files.state, files.memory, files.sums})
		if err != nil {
			return
		}
		_, _ = r.State()
		for i, b := range r.Head.Blocks {
			if b.Size > 6<<20 {
				t.Fatalf("block %d of %d bytes, and the file has less", i, b.Size)
			}
			for from, rounds := uint64(0), 0; ; rounds++ {
				first, count, err := r.NextData(i, from)
				if err != nil || count == 0 {
					break
				}
				if first < from || (first+count)*page > b.Size || rounds > 2048 {
					t.Fatalf("block %d: pages [%d, +%d) after %d", i, first, count, from)
				}
				from = first + count
			}
		}
	})
}
