package doctor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"microvm/vmm"
)

// lookAtState takes a state directory as a VM does, listens in it, and gives it
// back.
func lookAtState() []Check {
	root, err := vmm.StateRoot()
	if err != nil {
		return []Check{check("state directory", forBoot, err, "")}
	}
	_, absent := os.Stat(root)
	err = tryState()
	if absent != nil {
		_ = os.Remove(root) // only if it is empty still
	}
	return []Check{
		check("state directory", forBoot, err, root+": it can be written to, locked (F_OFD_SETLK) and listened in"),
		{Name: "vsock", Status: OK, For: "--vsock", Found: "unix sockets there are all it takes; no vhost_vsock"},
	}
}

func tryState() (err error) {
	name := fmt.Sprintf("doctor-%d", os.Getpid())
	dir, err := vmm.OpenStateDir(name)
	if err != nil {
		return fmt.Errorf("%w; set %s to a directory that this user may write to", err, vmm.StateDirEnv)
	}
	defer func() { err = errors.Join(err, dir.Release(vmm.ExitStatus{}, nil)) }()
	if second, err := vmm.OpenStateDir(name); !errors.Is(err, vmm.ErrNameTaken) {
		if err == nil {
			err = second.File().Close()
		}
		return fmt.Errorf("%s: two processes can have the same lock there (%v); set %s to a directory on a local file system", dir.Path, err, vmm.StateDirEnv)
	}
	ln, err := net.Listen("unix", filepath.Join(dir.Path, "try.sock"))
	if err != nil {
		return fmt.Errorf("%w; set %s to a directory on a local file system", err, vmm.StateDirEnv)
	}
	return ln.Close()
}
