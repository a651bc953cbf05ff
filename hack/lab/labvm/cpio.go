package labvm

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Archive writes an initramfs: a cpio archive in the "newc" format (Linux, Documentation/driver-api/early-userspace/
// buffer-format.rst). Parent directories are made as needed; everything belongs to root.
type Archive struct {
	w       io.Writer
	offset  int64
	inode   uint32
	written map[string]bool // by path inside the archive
	err     error           // the first one; later calls do nothing
}

// File types in a cpio mode word, as in stat(2).
const (
	modeDir     = 0o040000
	modeRegular = 0o100000
	modeSymlink = 0o120000
)

// NewArchive returns an empty Archive that goes to w.
func NewArchive(w io.Writer) *Archive {
	return &Archive{w: w, written: map[string]bool{"": true}}
}

func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (a *Archive) write(p []byte) {
	if a.err != nil {
		return
	}
	var n int
	n, a.err = a.w.Write(p)
	a.offset += int64(n)
}

// pad brings the offset to a multiple of four, as the format wants after a name and after data.
func (a *Archive) pad() {
	var zero [3]byte
	a.write(zero[:-a.offset&3])
}

func (a *Archive) header(name string, mode uint32, size int64) {
	if size >= 1<<32 && a.err == nil {
		a.err = fmt.Errorf("initramfs: %s: %d bytes, the cpio format ends at 4 GiB", name, size)
	}
	a.inode++
	// magic, ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
	h := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		a.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0)
	a.write([]byte(h + name + "\x00"))
	a.pad()
}

// first says whether name was not there yet, and makes its parents.
func (a *Archive) first(name string) bool {
	if a.written[name] {
		return false
	}
	a.written[name] = true
	if dir := path.Dir(name); dir != "." {
		a.Dir(dir)
	}
	return true
}

// Dir adds a directory; one that is there already is left alone.
func (a *Archive) Dir(name string) {
	if name = clean(name); a.first(name) {
		a.header(name, modeDir|0o755, 0)
	}
}

// Symlink adds a symbolic link at name.
func (a *Archive) Symlink(name, target string) {
	name = clean(name)
	if !a.first(name) {
		return
	}
	a.header(name, modeSymlink|0o777, int64(len(target)))
	a.write([]byte(target))
	a.pad()
}

// Bytes adds a file with the given contents.
func (a *Archive) Bytes(name string, perm fs.FileMode, data []byte) {
	name = clean(name)
	a.first(name)
	a.header(name, modeRegular|uint32(perm.Perm()), int64(len(data)))
	a.write(data)
	a.pad()
}

// Copy adds the host's file or whole folder at hostPath, as name. hostPath itself may be a symbolic link and is
// followed; links inside a folder stay links.
func (a *Archive) Copy(name, hostPath string) error {
	resolved, err := filepath.EvalSymlinks(hostPath)
	if err != nil {
		return fmt.Errorf("lab: copying into the lab: %w", err)
	}
	return filepath.WalkDir(resolved, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(resolved, p)
		if err != nil {
			return err
		}
		inside := path.Join(name, filepath.ToSlash(rel))
		switch {
		case d.IsDir():
			a.Dir(inside)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			a.Symlink(inside, target)
		case d.Type().IsRegular():
			return a.copyFile(inside, p)
		default:
			return fmt.Errorf("lab: copying %s into the lab: neither file, folder nor link", p)
		}
		return a.err
	})
}

func (a *Archive) copyFile(name, hostPath string) error {
	data, err := os.ReadFile(hostPath)
	if err != nil {
		return fmt.Errorf("lab: copying into the lab: %w", err)
	}
	info, err := os.Stat(hostPath)
	if err != nil {
		return fmt.Errorf("lab: copying into the lab: %w", err)
	}
	a.Bytes(name, info.Mode(), data)
	return a.err
}

// Close ends the archive and reports the first error of all that was added.
func (a *Archive) Close() error {
	a.header("TRAILER!!!", 0, 0)
	return a.err
}
