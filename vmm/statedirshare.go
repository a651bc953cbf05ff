package vmm

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Share lets the members of a group, given by name or number, use the VM: they
// may connect to its sockets and read its log. They can do with it what its owner
// can, from looking at its console to having it sent elsewhere. Call it before the
// sockets are opened.
func (d *StateDir) Share(group string) error {
	gid, err := lookupGroup(group)
	if err != nil {
		return err
	}
	var root unix.Stat_t
	if err := unix.Stat(filepath.Dir(d.Path), &root); err != nil {
		return fmt.Errorf("%s: %w", filepath.Dir(d.Path), err)
	}
	if root.Mode&0o001 == 0 && (root.Mode&0o010 == 0 || int(root.Gid) != gid) {
		return fmt.Errorf("share VM %s with group %s: it may not pass %s, which has mode %04o: chmod o+x %[3]s", d.Name, group, filepath.Dir(d.Path), root.Mode&0o7777)
	}
	d.group = gid
	if err := d.shareFile(d.Path, 0o750); err != nil {
		return fmt.Errorf("share VM %s with group %s: %w; only root can with a group that it is not in", d.Name, group, err)
	}
	for _, name := range []string{pidFile, logFile} {
		if err := d.shareFile(filepath.Join(d.Path, name), 0o640); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("share VM %s with group %s: %w", d.Name, group, err)
		}
	}
	return nil
}

// shareFile gives the directory's group, if it has one, a file with this mode.
func (d *StateDir) shareFile(path string, mode fs.FileMode) error {
	if d.group < 0 {
		return nil
	}
	if err := os.Chown(path, -1, d.group); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

func lookupGroup(group string) (int, error) {
	if gid, err := strconv.ParseUint(group, 10, 31); err == nil {
		return int(gid), nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, fmt.Errorf("%w; groupadd --system %s makes it", err, group)
	}
	gid, err := strconv.ParseUint(g.Gid, 10, 31)
	return int(gid), err
}

// listen opens one of the directory's sockets.
func (d *StateDir) listen(name string) (*net.UnixListener, error) {
	path := filepath.Join(d.Path, name)
	l, err := listenUnix(path)
	if err != nil {
		return nil, err
	}
	if err := d.shareFile(path, 0o660); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// write writes one of the directory's files.
func (d *StateDir) write(name string, b []byte) error {
	if f := d.ahead[name]; f != nil {
		_, err := f.Write(b)
		return errors.Join(err, f.Close())
	}
	path := filepath.Join(d.Path, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	return d.shareFile(path, 0o640)
}
