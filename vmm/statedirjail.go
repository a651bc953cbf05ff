package vmm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// leave opens the files that Release is going to write, if it is, for a process
// that cannot give them to the directory's group then, or is in jail and does not
// reach them at all. What one in jail cannot remove is found to be nobody's by its
// lock, as after a crash, and microvm ps --clean removes it.
func (d *StateDir) leave() error {
	if _, err := os.Stat(d.LogPath()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	d.ahead = make(map[string]*os.File)
	for _, name := range []string{exitFile, printedFile} {
		path := filepath.Join(d.Path, name)
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err == nil {
			d.ahead[name] = f
			err = d.shareFile(path, 0o640)
		}
		if err != nil {
			return fmt.Errorf("state directory: %w", err)
		}
	}
	return nil
}
