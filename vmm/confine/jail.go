package confine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Jail is where a process goes whose files are all open.
type Jail struct {
	// Dir becomes its root.
	Dir string
	// UID and GID are the user and the group that it becomes, with no other
	// groups. Neither is root's: a root finds its way out.
	UID, GID int
	// Cgroup is a directory of a cgroup v2 hierarchy that it is put into, made
	// if it is not there; empty is where it is.
	Cgroup string

	joined bool // the process is in Cgroup
}

// cgroupRoot is where a relative Cgroup is.
const cgroupRoot = "/sys/fs/cgroup"

// ParseJail reads DIR,uid=N,gid=N[,cgroup=PATH].
func ParseJail(text string) (*Jail, error) {
	dir, rest, _ := strings.Cut(text, ",")
	j := &Jail{Dir: dir}
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("jail %q: has to be an absolute path", dir)
	}
	for rest != "" {
		var option string
		option, rest, _ = strings.Cut(rest, ",")
		key, value, _ := strings.Cut(option, "=")
		var err error
		switch {
		case key == "uid":
			j.UID, err = parseID(value)
		case key == "gid":
			j.GID, err = parseID(value)
		case key == "cgroup" && value != "":
			j.Cgroup = value
			if !filepath.IsAbs(value) {
				j.Cgroup = filepath.Join(cgroupRoot, value)
			}
		default:
			err = errors.New("unknown; there are uid=N, gid=N and cgroup=PATH")
		}
		if err != nil {
			return nil, fmt.Errorf("jail %s: option %q: %w", dir, option, err)
		}
	}
	if j.UID == 0 || j.GID == 0 {
		return nil, fmt.Errorf("jail %s: uid=N and gid=N have to be there: a user and a group that are not root", dir)
	}
	return j, nil
}

func parseID(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || n == 0 {
		return 0, errors.New("has to be a number, 1 to 2147483647")
	}
	return int(n), nil
}

// check refuses a directory in which its prisoner could make something.
func (j *Jail) check() error {
	var stat unix.Stat_t
	if err := unix.Stat(j.Dir, &stat); err != nil {
		return fmt.Errorf("jail %s: %w; make an empty directory that root owns", j.Dir, err)
	}
	switch {
	case stat.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("jail %s: has to be a directory", j.Dir)
	case stat.Mode&0o022 != 0:
		return fmt.Errorf("jail %s: others than its owner may write to it (mode %#o): chmod go-w %s", j.Dir, stat.Mode&0o777, j.Dir)
	case int(stat.Uid) == j.UID:
		return fmt.Errorf("jail %s: it belongs to user %d, who is to be in it: chown root %s", j.Dir, j.UID, j.Dir)
	}
	return nil
}

// capabilities are what enter takes.
func (j *Jail) capabilities() uint64 {
	return Capabilities(unix.CAP_SYS_CHROOT, unix.CAP_SETUID, unix.CAP_SETGID)
}

// prepare checks it, and puts the process into its control group: the first time,
// for later it may not.
func (j *Jail) prepare() error {
	if j == nil {
		return nil
	}
	if err := j.check(); err != nil {
		return err
	}
	if j.Cgroup == "" || j.joined {
		return nil
	}
	err := os.MkdirAll(j.Cgroup, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(j.Cgroup, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
	}
	if err != nil {
		return fmt.Errorf("jail: control group: %w", err)
	}
	j.joined = true
	return nil
}

// enter puts all threads there; root's capabilities go with root.
func (j *Jail) enter() error {
	if j == nil {
		return nil
	}
	// The root is one for all threads. No file of the old one that is open is a
	// directory, from which there would be a way back.
	if err := unix.Chroot(j.Dir); err != nil {
		return fmt.Errorf("jail: chroot %s: %w; this takes CAP_SYS_CHROOT", j.Dir, err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("jail: chdir: %w", err)
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("jail: give up groups: %w", err)
	}
	if err := syscall.Setresgid(j.GID, j.GID, j.GID); err != nil {
		return fmt.Errorf("jail: become group %d: %w", j.GID, err)
	}
	if err := syscall.Setresuid(j.UID, j.UID, j.UID); err != nil {
		return fmt.Errorf("jail: become user %d: %w", j.UID, err)
	}
	return nil
}
