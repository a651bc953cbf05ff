package vmm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// An Instance is a state directory, seen from outside.
type Instance struct {
	Name string
	Path string
	// Running: a process owns the directory.
	Running bool
	// PID is that process's, or that of the one that died.
	PID int
	// Dead: a process owned it, and has ended without giving it back.
	Dead bool
	// Exit is how the VM ended, nil if it runs or left no word.
	Exit *ExitStatus
}

// WhyDead says what can be said of a VM that is dead.
const WhyDead = "its process was killed or crashed"

// LogPath is where the VM's log is, if it was started detached.
func (i Instance) LogPath() string { return filepath.Join(i.Path, logFile) }

// APISocket is where the VM's process answers.
func (i Instance) APISocket() string { return filepath.Join(i.Path, apiSocket) }

// ConsoleSocket is where its console is shown, if it has one.
func (i Instance) ConsoleSocket() string { return filepath.Join(i.Path, consoleSocket) }

// PrintedPath is where the last of what the guest printed is, if the VM has ended
// and was started detached.
func (i Instance) PrintedPath() string { return filepath.Join(i.Path, printedFile) }

// Clean removes what a VM left that has ended or is dead. ErrNameTaken if one of
// that name runs by now. A tap device goes with the process, and so do locks on
// disks: only files are left.
func (i Instance) Clean() error {
	for {
		lock, err := lockStateDir(i.Path)
		if err != nil {
			return fmt.Errorf("clean up after VM %s: %w", i.Name, err)
		}
		if lock == nil {
			continue // somebody else cleans up
		}
		defer lock.Close()
		d := &StateDir{Name: i.Name, Path: i.Path, lock: lock}
		if err := d.remove(apiSocket, consoleSocket, vsockSocket, logFile, exitFile, printedFile, pidFile); err != nil {
			return fmt.Errorf("clean up after VM %s: %w", i.Name, err)
		}
		return removeDir(i.Path)
	}
}

// Instances lists the state directories under StateRoot, by name.
func Instances() ([]Instance, error) {
	root, err := StateRoot()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Instance
	for _, e := range entries {
		if !e.IsDir() || ValidateName(e.Name()) != nil {
			continue
		}
		list = append(list, inspectDir(filepath.Join(root, e.Name())))
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list, nil
}

// FindInstance looks one VM up. ErrNoSuchVM if it has no directory.
func FindInstance(name string) (Instance, error) {
	if err := ValidateName(name); err != nil {
		return Instance{}, err
	}
	root, err := StateRoot()
	if err != nil {
		return Instance{}, err
	}
	path := filepath.Join(root, name)
	if _, err := os.Stat(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return Instance{}, fmt.Errorf("%s: %w", name, ErrNoSuchVM)
		}
		return Instance{}, err
	}
	return inspectDir(path), nil
}

func inspectDir(path string) Instance {
	i := Instance{Name: filepath.Base(path), Path: path}
	pid := filepath.Join(path, pidFile)
	if owned(pid) {
		i.Running, i.PID = true, readPID(pid)
		return i
	}
	if _, err := os.Stat(pid); err == nil {
		i.Dead, i.PID = true, readPID(pid)
		return i
	}
	if b, err := os.ReadFile(filepath.Join(path, exitFile)); err == nil {
		var exit ExitStatus
		if decodeStrict(b, &exit) == nil {
			i.Exit = &exit
		}
	}
	return i
}

// owned asks whether a process holds the lock on a pid file.
func owned(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	query := unix.Flock_t{Type: unix.F_WRLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &query) == nil && query.Type != unix.F_UNLCK
}

func readPID(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}
