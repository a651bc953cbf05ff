package labvm

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"microvm/hack/lab/frame"
)

// Where a program in the lab finds the parts of a Linux guest, and the variables that say so.
const (
	guestKernel = "/lab/guest/vmlinuz"
	guestInitrd = "/lab/guest/initrd.gz"
	guestStress = "/lab/guest/stress.cpio"
	// EnvGuestKernel and EnvGuestInitrd name a kernel and an initramfs that tests of Linux guests boot. They are set
	// in the lab; set them natively, where KVM can boot Linux, to run the same tests there.
	EnvGuestKernel = "MICROVM_GUEST_KERNEL"
	EnvGuestInitrd = "MICROVM_GUEST_INITRD"
	// EnvGuestVsock names the program of hack/lab/vsock, for tests that put it before the initramfs, in one file.
	EnvGuestVsock = "MICROVM_GUEST_VSOCK"
	// EnvGuestStress names an archive with stress-ng, which stands before the initramfs in one file; with Options.Stress.
	EnvGuestStress = "MICROVM_GUEST_STRESS"
	// EnvGuestRoot names a disk with Debian on it (RootImage), for tests that want one.
	EnvGuestRoot = "MICROVM_GUEST_ROOT"
)

// The modules that carry frames, and those that make a KVM host with SVM.
var (
	portModules = []string{"virtio_pci", "virtio_console"}
	hostModules = []string{"irqbypass", "kvm", "kvm_amd"}
	// guestModules are the drivers of what a microvm has and Debian's kernel has not built in.
	guestModules = []string{"virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng", "virtio_balloon", "virtio_console", "vmw_vsock_virtio_transport"}
)

//go:embed guest.sh
var guestScript []byte

// guestModuleList names the guest's module files, one a line, in the order of inserting them.
const guestModuleList = "lib/modules/list"

// GuestInitrd returns the gzipped initramfs of the lab's guests: busybox, guestModules and guest.sh.
func (p *Pieces) GuestInitrd() ([]byte, error) {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	a := NewArchive(z)
	if err := addBusybox(a, p.Busybox); err != nil {
		return nil, err
	}
	for _, dir := range []string{"dev", "proc", "sys"} {
		a.Dir(dir)
	}
	a.Bytes("init", 0o755, guestScript)
	if err := p.copyModules(a, guestModuleList, guestModules, map[string]bool{}); err != nil {
		return nil, err
	}
	if err := a.Close(); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// addBusybox adds busybox and a link for each of its applets.
func addBusybox(a *Archive, busybox string) error {
	out, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("lab: %s --list: %w", busybox, err)
	}
	if err := a.Copy("bin/busybox", busybox); err != nil {
		return err
	}
	for applet := range strings.FieldsSeq(string(out)) {
		if applet != "busybox" {
			a.Symlink("bin/"+applet, "busybox")
		}
	}
	a.Symlink("sbin", "bin")
	a.Symlink("usr/bin/env", "../../bin/env") // what scripts start with
	return nil
}

// writeImage writes the lab's initramfs: init, busybox, modules, the guest's parts, the caller's files and the job.
func (p *Pieces) writeImage(w io.Writer, initBinary string, o *Options) error {
	a := NewArchive(w)
	if err := a.Copy("init", initBinary); err != nil {
		return err
	}
	if err := addBusybox(a, p.Busybox); err != nil {
		return err
	}
	modules := o.Modules
	if len(o.Disks) > 0 {
		modules = append([]string{"virtio_blk"}, modules...)
	}
	if err := p.addModules(a, modules); err != nil {
		return err
	}
	initrd, err := p.GuestInitrd()
	if err != nil {
		return err
	}
	a.Bytes(guestInitrd, 0o644, initrd)
	if err := a.Copy(guestKernel, p.Vmlinuz); err != nil {
		return err
	}
	env := []string{EnvGuestKernel + "=" + guestKernel, EnvGuestInitrd + "=" + guestInitrd}
	if o.Stress {
		stress, err := p.StressInitrd(o.Progress)
		if err != nil {
			return err
		}
		a.Bytes(guestStress, 0o644, stress)
		env = append(env, EnvGuestStress+"="+guestStress)
	}
	if err := addMakeFS(a); err != nil {
		return err
	}
	if o.QEMU {
		if err := addQEMU(a); err != nil {
			return err
		}
	}
	for _, f := range o.Files {
		if err := a.Copy(f.Guest, f.Host); err != nil {
			return err
		}
	}
	a.Bytes("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\n"))
	a.Bytes("etc/group", 0o644, []byte("root:x:0:\n"))
	a.Bytes("etc/hosts", 0o644, []byte("127.0.0.1 localhost lab\n::1 localhost\n"))
	a.Dir("root")
	job, err := json.Marshal(frame.Job{
		Args:     o.Command,
		Env:      append(env, o.Env...),
		Dir:      "/root",
		Terminal: o.Terminal,
	})
	if err != nil {
		return err
	}
	a.Bytes(frame.JobPath, 0o644, job)
	return a.Close()
}

// addModules adds the module files, and the two lists of them that init goes by.
func (p *Pieces) addModules(a *Archive, extra []string) error {
	inserted := map[string]bool{}
	for _, list := range []struct {
		path  string
		names []string
	}{
		{frame.PortModules, portModules},
		{frame.HostModules, append(append([]string(nil), hostModules...), extra...)},
	} {
		if err := p.copyModules(a, list.path, list.names, inserted); err != nil {
			return err
		}
	}
	return nil
}

// copyModules adds the named modules and what they need, but for those that are inserted already, and a list of their
// files.
func (p *Pieces) copyModules(a *Archive, list string, names []string, inserted map[string]bool) error {
	files, err := resolveModules(p.Modules, names)
	if err != nil {
		return err
	}
	var lines strings.Builder
	for _, file := range files {
		if inserted[file] {
			continue
		}
		inserted[file] = true
		inside := path.Join("/lib/modules", filepath.Base(file))
		if err := a.Copy(inside, file); err != nil {
			return err
		}
		lines.WriteString(inside + "\n")
	}
	a.Bytes(list, 0o644, []byte(lines.String()))
	return nil
}

// buildInit builds the lab's process 1 at path.
func buildInit(path string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "microvm/hack/lab/init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("lab: building its init: %w\n%s", err, msg)
	}
	return nil
}
