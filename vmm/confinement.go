package vmm

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"microvm/migration/uffd"
	"microvm/vmm/confine"
)

// Confinement says what a VM's process is to give up once it is set up.
type Confinement struct {
	// Seccomp is one of package confine's constants.
	Seccomp string
	// NoLandlock leaves all files to it that its user may use.
	NoLandlock bool
	// TLSDir is the folder, if not empty, that migrations have TLS's files from.
	// Nothing else of the host can be read then but what the Go runtime needs.
	TLSDir string
	Jail   *confine.Jail
}

// confinePlace is what a VM's process uses of the host after it is set up.
type confinePlace struct {
	stateDir string // empty: not known yet
	vsock    string // path of its socket, or empty
	listen   string // path of a unix socket that it removes in the end, or empty
	// Of a VM that is to be built: what it may be made of.
	build bool
	disks []string
	taps  bool
}

// grants are the files of it.
func (c Confinement) grants(p confinePlace) []confine.Grant {
	root := filepath.Dir(p.stateDir)
	grants := []confine.Grant{{Path: p.stateDir, Access: confine.Own}, {Path: root, Access: confine.RemoveDirs}}
	if p.vsock != "" {
		grants = append(grants, confine.Grant{Path: filepath.Dir(p.vsock), Access: confine.Sockets})
	}
	if p.listen != "" {
		grants = append(grants, confine.Grant{Path: filepath.Dir(p.listen), Access: confine.Sockets})
	}
	if p.build {
		grants = append(grants, confine.Grant{Path: "/dev/kvm", Access: confine.Device})
		if p.taps {
			grants = append(grants, confine.Grant{Path: "/dev/net/tun", Access: confine.Device})
		}
		for _, d := range p.disks {
			if _, err := os.Stat(d); errors.Is(err, fs.ErrNotExist) {
				d = filepath.Dir(d) // it may come before its VM does
			}
			grants = append(grants, confine.Grant{Path: d, Access: confine.ReadWrite})
		}
	}
	// Opened when a migration comes in and memory is armed.
	grants = append(grants, confine.Grant{Path: "/dev/userfaultfd", Access: confine.Device})
	for _, path := range c.readable() {
		grants = append(grants, confine.Grant{Path: path, Access: confine.Read})
	}
	return grants
}

// readable are the files and folders that may be read.
func (c Confinement) readable() []string {
	if c.TLSDir == "" {
		return []string{"/"} // a migration may name any folder
	}
	paths := []string{
		c.TLSDir,
		// What it says of its host, and of itself.
		"/proc", "/sys/kernel/mm", "/sys/devices/system", "/etc/machine-id", "/etc/localtime", "/usr/share/zoneinfo",
		// The addresses of hosts that have names, and the numbers of groups.
		"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/group",
	}
	// The files may be links to where they really are.
	links, err := filepath.Glob(filepath.Join(c.TLSDir, "*.pem"))
	if err != nil {
		return paths
	}
	for _, link := range links {
		if target, err := filepath.EvalSymlinks(link); err == nil {
			paths = append(paths, filepath.Dir(target))
		}
	}
	return paths
}

// capabilities are what stays of them, if it is there.
func (c Confinement) capabilities(p confinePlace) uint64 {
	var keep uint64
	if p.build {
		// Disks of other users, taps that are made, a group's sockets, and going
		// to jail.
		keep = confine.Capabilities(unix.CAP_DAC_OVERRIDE, unix.CAP_NET_ADMIN, unix.CAP_CHOWN)
		if c.Jail != nil {
			keep |= confine.Capabilities(unix.CAP_SYS_CHROOT, unix.CAP_SETUID, unix.CAP_SETGID)
		}
	}
	// What /dev/userfaultfd does without.
	if _, err := os.Stat("/dev/userfaultfd"); err != nil {
		keep |= confine.Capabilities(unix.CAP_SYS_PTRACE)
	}
	return keep
}

// apply confines the process, with a filter of system calls of this kind.
func (c Confinement) apply(p confinePlace, seccomp string) (confine.Status, error) {
	o := confine.Options{Seccomp: seccomp, Again: p.build, Landlock: !c.NoLandlock, Grants: c.grants(p), Keep: c.capabilities(p), Jail: c.Jail}
	status, err := confine.Apply(o)
	if err != nil {
		return status, fmt.Errorf("confine this process: %w", err)
	}
	return status, nil
}

// Confine has the process of a VM that is built give up what it needs no longer:
// see package confine. On an error it is to end.
func (s *Server) Confine(vm *VM, c Confinement) error {
	status, err := s.finish(c, confinePlace{vsock: vm.vsockPath()}, c.Seccomp)
	if err == nil {
		s.confined(status)
	}
	return err
}

// finish confines the process to what its VM needs.
func (s *Server) finish(c Confinement, p confinePlace, seccomp string) (confine.Status, error) {
	if c.Jail != nil || s.dir.group >= 0 {
		if err := s.dir.leave(); err != nil {
			return confine.Status{}, err
		}
	}
	p.stateDir = s.dir.Path
	return c.apply(p, seccomp)
}

// confined says what holds of this process, to who asks.
func (s *Server) confined(status confine.Status) {
	s.API.confined.Store(&status)
	if status.NoLandlock != "" {
		s.log.Warn("this process can use all files that its user can", "why", status.NoLandlock)
	}
	s.log.Debug("confined", "seccomp", status.Seccomp, "landlock", status.Landlock, "capabilities", status.Capabilities)
}

// Confine confines the process before it reads what a source says at ln, to what
// it takes to build whatever VM that may describe; the rest follows when that is
// built. On an error nothing is left of the Arrival, and the process is to end.
func (a *Arrival) Confine(ln net.Listener, c Confinement) error {
	a.confinement, a.listening = &c, socketPath(ln)
	err := a.confineEarly(c)
	if err != nil && a.Server != nil {
		err = errors.Join(err, a.Server.Close(ExitStatus{Code: ExitCode(err), Reason: err.Error()}))
	}
	return err
}

func (a *Arrival) confineEarly(c Confinement) error {
	p := confinePlace{build: true, disks: a.o.Disks, taps: len(a.o.Nets) > 0, vsock: a.o.Vsock, listen: a.listening}
	if a.Server != nil {
		p.stateDir = a.Server.dir.Path
	} else {
		root, err := StateRoot()
		if err == nil {
			err = os.MkdirAll(root, 0o700)
		}
		if err != nil {
			return err
		}
		p.stateDir = root // the VM's name is going to come from its source
	}
	if c.Jail != nil {
		// It is needed when the VM is built, which is when the process goes to jail.
		if err := uffd.Reserve(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	_, err := c.apply(p, c.Seccomp)
	return err
}

// confineBuilt confines it to what the VM takes that it has built. The filter of
// system calls stays as it is: a second one would cost at each exit of a vCPU.
func (a *Arrival) confineBuilt(vm *VM) error {
	c := a.confinement
	if c == nil {
		return nil
	}
	status, err := a.Server.finish(*c, confinePlace{vsock: vm.vsockPath(), listen: a.listening}, "")
	if err != nil {
		return err
	}
	status.Seccomp = c.Seccomp
	a.Server.confined(status)
	return nil
}

// socketPath is that of a listener's unix socket, empty if it has none.
func socketPath(ln net.Listener) string {
	addr, ok := ln.Addr().(*net.UnixAddr)
	if !ok || addr.Name == "" || addr.Name[0] == '@' {
		return ""
	}
	path, err := filepath.Abs(addr.Name)
	if err != nil {
		return ""
	}
	return path
}

// vsockPath is that of the vsock device's socket, empty without one.
func (vm *VM) vsockPath() string {
	if vm.vsock == nil {
		return ""
	}
	return vm.vsock.path
}
