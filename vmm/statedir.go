package vmm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// StateDirEnv overrides the directory that holds the VMs' state directories.
const StateDirEnv = "MICROVM_STATE_DIR"

// The files of a state directory.
const (
	apiSocket     = "api.sock"
	consoleSocket = "console.sock"
	vsockSocket   = "vsock.sock" // and vsock.sock_PORT, which are other programs'
	pidFile       = "pid"
	logFile       = "log"
	// What a VM leaves beside its log when it has ended: how, and the last of
	// what its guest printed.
	exitFile    = "exit"
	printedFile = "printed"
)

// ErrNoSuchVM: no running process owns the name.
var ErrNoSuchVM = errors.New("no such VM")

// ErrNameTaken: a running process owns the name already.
var ErrNameTaken = errors.New("a VM of this name is running")

// maxNameLen leaves room for the directory and the socket's file name in the
// 108 bytes of a sockaddr_un.
const maxNameLen = 48

// ValidateName checks a VM's name. It becomes a file name, so only letters,
// digits, '.', '_' and '-' may be in it, and it starts with a letter or digit.
func ValidateName(name string) error {
	if name == "" {
		return errors.New("a VM's name is empty")
	}
	if len(name) > maxNameLen {
		return fmt.Errorf("VM name %.16q... has %d characters: at most %d", name, len(name), maxNameLen)
	}
	for i, r := range []byte(name) {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("._-", rune(r))) {
			return fmt.Errorf("VM name %q: letters, digits, '.', '_' and '-', the first a letter or digit", name)
		}
	}
	return nil
}

// StateRoot is the directory with one state directory a VM: that named by
// MICROVM_STATE_DIR, else /run/microvm for root, else $XDG_RUNTIME_DIR/microvm.
func StateRoot() (string, error) {
	if dir := os.Getenv(StateDirEnv); dir != "" {
		return filepath.Abs(dir)
	}
	if os.Geteuid() == 0 {
		return "/run/microvm", nil
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "microvm"), nil
	}
	return "", fmt.Errorf("no place for the VMs' state: XDG_RUNTIME_DIR is not set; set it or %s", StateDirEnv)
}

// A StateDir is the directory of one running VM, owned by this process: its
// pid file is locked. The lock is one of an open file description (fcntl
// F_OFD_SETLK), because a child can inherit it (run --detach) and because
// others can ask whether it is held without taking it (ps).
type StateDir struct {
	Name string
	Path string

	lock *os.File
	// group may use the VM, -1 is none: see Share.
	group int
	// ahead are files that are open to be written in the end, by name: see leave.
	ahead map[string]*os.File
}

// OpenStateDir makes the directory for a VM, mode 0700, and takes it for this
// process. ErrNameTaken if another process has it.
func OpenStateDir(name string) (*StateDir, error) {
	path, err := statePath(name)
	if err != nil {
		return nil, err
	}
	for {
		lock, err := lockStateDir(path)
		if err != nil {
			return nil, fmt.Errorf("state directory of VM %s: %w", name, err)
		}
		if lock != nil {
			d := &StateDir{Name: name, Path: path, lock: lock, group: -1}
			// What a former VM of this name left behind says nothing of this one.
			return d, errors.Join(d.remove(logFile, exitFile, printedFile), d.writePID())
		}
	}
}

// statePath is where the state directory of a VM is, or would be.
func statePath(name string) (string, error) {
	if err := ValidateName(name); err != nil {
		return "", err
	}
	root, err := StateRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, name)
	if limit := len(unix.RawSockaddrUnix{}.Path) - 1; len(filepath.Join(path, consoleSocket)) > limit {
		return "", fmt.Errorf("%s: too long for a socket's path of %d bytes; set %s to a shorter directory", path, limit, StateDirEnv)
	}
	return path, nil
}

// lockStateDir creates path and locks its pid file. It returns nil without an
// error when the owner before removed the file in the meantime: try again.
func lockStateDir(path string) (*os.File, error) {
	// Others may see that there are VMs, and share one: see Share.
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	pid := filepath.Join(path, pidFile)
	f, err := os.OpenFile(pid, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the directory has gone between MkdirAll and here
	}
	if err != nil {
		return nil, err
	}
	request := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &request); err != nil {
		f.Close()
		if err == unix.EAGAIN || err == unix.EACCES {
			return nil, fmt.Errorf("%w (pid %d)", ErrNameTaken, readPID(pid))
		}
		return nil, fmt.Errorf("%s: F_OFD_SETLK: %w", pid, err)
	}
	locked, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	if now, err := os.Stat(pid); err != nil || !os.SameFile(locked, now) {
		f.Close()
		return nil, nil
	}
	// Only now: one that runs may be shared.
	if err := os.Chmod(path, 0o700); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// AdoptStateDir takes over a directory that a parent process opened; lock is
// the file that the parent's File returned.
func AdoptStateDir(name string, lock *os.File) (*StateDir, error) {
	d := &StateDir{Name: name, Path: filepath.Dir(lock.Name()), lock: lock, group: -1}
	return d, d.writePID()
}

// File is the locked pid file, to be handed to a child process.
func (d *StateDir) File() *os.File { return d.lock }

// LogPath is where a detached VM's log goes.
func (d *StateDir) LogPath() string { return filepath.Join(d.Path, logFile) }

func (d *StateDir) writePID() error {
	if err := d.lock.Truncate(0); err != nil {
		return err
	}
	_, err := d.lock.WriteAt(strconv.AppendInt(nil, int64(os.Getpid()), 10), 0)
	return err
}

// Release gives the directory back. Its sockets and pid file go; a log, if
// there is one, stays, and with it how the VM ended and what it printed last.
func (d *StateDir) Release(exit ExitStatus, printed []byte) error {
	_, err := os.Stat(d.LogPath())
	keep := err == nil || d.ahead != nil
	if keep {
		b, err := json.Marshal(exit)
		if err != nil {
			return err
		}
		if err := errors.Join(d.write(exitFile, b), d.write(printedFile, printed)); err != nil {
			return err
		}
	}
	if err := d.remove(apiSocket, consoleSocket, vsockSocket, pidFile); err != nil {
		return err
	}
	if !keep {
		if err := removeDir(d.Path); err != nil {
			return err
		}
	}
	return d.lock.Close()
}

// remove removes those files of the directory that are there.
func (d *StateDir) remove(names ...string) error {
	for _, name := range names {
		if err := os.Remove(filepath.Join(d.Path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// removeDir removes a state directory that has nothing of ours in it any more.
// One that somebody else made may have to stay: what other programs have put in
// it is theirs (sockets for a guest), and a service manager may have made it and
// everything around it read-only.
func removeDir(path string) error {
	err := os.Remove(path)
	for _, theirs := range []error{unix.ENOTEMPTY, unix.EROFS, unix.EBUSY, unix.EACCES, fs.ErrNotExist} {
		if errors.Is(err, theirs) {
			return nil
		}
	}
	return err
}

// listenUnix listens on a socket for this user's programs, and replaces one that
// nobody listens on any more.
func listenUnix(path string) (*net.UnixListener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// removeStale removes a socket that nobody listens on. Only a refused
// connection proves that; whatever else happens, the file stays. A file that
// is no socket refuses connections too, and is not ours.
func removeStale(path string) error {
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s: in the way, and not a socket; remove it", path)
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("%s: another process listens on it", path)
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(path)
	}
	return fmt.Errorf("stale socket? %w", err)
}

// ExitStatus is how a VM ended, as the exit file and the wait call give it.
type ExitStatus struct {
	Code   int    `json:"code"`
	Reason string `json:"reason"`
}
