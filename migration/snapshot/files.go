package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// names are the files of a snapshot, in the order in which they are listed and
// passed from one process to another.
var names = [...]string{"machine.json", "state", "memory", "sums"}

// NumFiles is how many files a snapshot is.
const NumFiles = len(names)

// Files are those of one snapshot, open.
type Files struct {
	machine, state, memory, sums *os.File
}

// Create makes the directory dir, for this user alone, with the empty files of a
// snapshot. It may be there, empty, before.
func Create(dir string) (*Files, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	there, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	if len(there) > 0 {
		return nil, fmt.Errorf("snapshot: %s is not empty: it has %s; name a directory that is, or one that is not there", dir, there[0].Name())
	}
	f, err := open(dir, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, errors.Join(err, Remove(dir))
	}
	// What is written to the files is worth nothing without their names.
	if err := errors.Join(syncDir(dir), syncDir(filepath.Dir(dir))); err != nil {
		f.Close()
		return nil, errors.Join(err, Remove(dir))
	}
	return f, nil
}

// syncDir waits until the names in a directory are on the disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

// Open opens the snapshot in dir to be read.
func Open(dir string) (*Files, error) {
	f, err := open(dir, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it is no snapshot, or not all of one", err)
	}
	return f, err
}

func open(dir string, flags int) (*Files, error) {
	var files []*os.File
	for _, name := range names {
		f, err := os.OpenFile(filepath.Join(dir, name), flags, 0o600)
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("snapshot: %w", err)
		}
		files = append(files, f)
	}
	return FromList(files)
}

// Remove removes what Create made, with what has been written to it. What else is
// in dir stays, and dir with it.
func Remove(dir string) error {
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Remove(dir)
}

// List gives the files, to be passed to another process, which makes a Files of
// them by FromList.
func (f *Files) List() []*os.File { return []*os.File{f.machine, f.state, f.memory, f.sums} }

// FromList makes a Files of what List gave. It takes the files over.
func FromList(files []*os.File) (*Files, error) {
	if len(files) != NumFiles {
		closeAll(files)
		return nil, fmt.Errorf("snapshot: %d files, has to be %d", len(files), NumFiles)
	}
	f := &Files{files[0], files[1], files[2], files[3]}
	for i, file := range files {
		st, err := file.Stat()
		if err == nil && !st.Mode().IsRegular() {
			err = fmt.Errorf("%s: %v: not a regular file", file.Name(), st.Mode().Type())
		}
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("snapshot: %s: %w", names[i], err)
		}
	}
	return f, nil
}

// Close closes the files.
func (f *Files) Close() { closeAll(f.List()) }

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
