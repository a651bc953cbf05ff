package confine

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Access is what may be done with a file, or with what is beneath a directory:
// rights of landlock(7).
type Access uint64

// The kinds of access that a VM's process has use for.
const (
	Read      Access = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	ReadWrite Access = Read | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	// Device: to open a device's node, and ioctls on it.
	Device Access = ReadWrite | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	// Sockets: to make unix sockets in a directory, and to remove them, with
	// which goes to remove other files.
	Sockets Access = unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE
	// RemoveDirs: to remove directories from a directory.
	RemoveDirs Access = unix.LANDLOCK_ACCESS_FS_REMOVE_DIR
	// Own: what the owner of a directory of files, sockets and directories does.
	Own Access = ReadWrite | Sockets | RemoveDirs | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_DIR
)

// ofFiles are the rights that a rule for a single file may have.
const ofFiles = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE |
	unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV

// A Grant is access to a file, or to all beneath a directory. One that is not
// there at the time is left out.
type Grant struct {
	Path   string
	Access Access
}

// rightsSince are the rights that the version of Landlock brought. What it does
// not know it cannot forbid.
var rightsSince = []struct {
	abi    int
	rights uint64
}{
	{1, unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM},
	{2, unix.LANDLOCK_ACCESS_FS_REFER},
	{3, unix.LANDLOCK_ACCESS_FS_TRUNCATE},
	{5, unix.LANDLOCK_ACCESS_FS_IOCTL_DEV},
}

// netABI brought rights on TCP ports.
const netABI = 4

// A ruleset is what is going to be allowed; close it.
type ruleset struct {
	fd  int // -1 without Landlock
	abi int // its version, 0 without
}

// errNoLandlock: the kernel has none, or it is not to be had here.
var errNoLandlock = errors.New("no Landlock on this host")

// newRuleset prepares what restrict then enforces: no file is opened, made or
// removed but as grants say, and no TCP port is bound. Unix sockets are connected
// to, and what is open stays so.
func newRuleset(grants []Grant) (*ruleset, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return nil, fmt.Errorf("%w: %w; Linux 5.13 with CONFIG_SECURITY_LANDLOCK, and landlock among the kernel's lsm=", errNoLandlock, errno)
	}
	r := &ruleset{abi: int(abi)}
	var attr unix.LandlockRulesetAttr
	for _, s := range rightsSince {
		if r.abi >= s.abi {
			attr.Handled_access_fs |= s.rights
		}
	}
	size := unsafe.Sizeof(attr.Handled_access_fs)
	if r.abi >= netABI {
		attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP
		size += unsafe.Sizeof(attr.Handled_access_net)
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return nil, fmt.Errorf("landlock_create_ruleset: %w", errno)
	}
	r.fd = int(fd)
	for _, g := range grants {
		if err := r.add(g, attr.Handled_access_fs); err != nil {
			r.close()
			return nil, fmt.Errorf("let %s be used: landlock: %w", g.Path, err)
		}
	}
	return r, nil
}

func (r *ruleset) add(g Grant, handled uint64) error {
	fd, err := unix.Open(g.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	rights := uint64(g.Access) & handled
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= ofFiles
	}
	if rights == 0 {
		return nil
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(r.fd), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// restrict puts it into force, in every thread. Preconditions: all of them have
// no_new_privs.
func (r *ruleset) restrict() error {
	if err := onAllThreads(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(r.fd), 0, 0); err != nil {
		return fmt.Errorf("landlock_restrict_self: %w", err)
	}
	return nil
}

func (r *ruleset) close() { _ = unix.Close(r.fd) }
