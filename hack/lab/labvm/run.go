package labvm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// StatusDeadline is the exit status of a command that the deadline ended, as timeout(1) has it.
const StatusDeadline = 124

// File is a file or a folder of this machine and its path in the lab.
type File struct{ Host, Guest string }

// Options say what to run in the lab, and how.
type Options struct {
	Command   []string      // the command and its arguments; looked up in the lab's PATH
	Env       []string      // NAME=VALUE, for the command
	Files     []File        // copied in before the boot
	Modules   []string      // kernel modules to insert besides KVM's
	Disks     []string      // images that are /dev/vda, vdb, ... in the lab; what is written to them is forgotten
	MemoryMiB int           // the lab's RAM, in which its files lie too; 0: 4096
	CPUs      int           // for the command and its guests; 0: 2
	Deadline  time.Duration // from Run's start, boot included; 0: none
	BootTime  time.Duration // for the lab to be up; then it is booted again, twice at most; 0: 2 minutes
	QEMU      bool          // copy this machine's QEMU into the lab
	Stress    bool          // have stress-ng for its guests, see EnvGuestStress

	Terminal       bool // give the command a terminal
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Signals        <-chan os.Signal // passed on to the command
	Console        io.Writer        // the lab kernel's messages; nil: shown only if the lab fails
	Progress       io.Writer        // what takes long, and the times measured; nil: nothing
}

// Run boots the lab, runs the command in it and returns the command's exit status: StatusDeadline if it outlived the
// deadline, 128+n if signal n ended it. The error is about the lab itself, never about what the command did.
func (p *Pieces) Run(ctx context.Context, o Options) (int, error) {
	if len(o.Command) == 0 {
		return 0, errors.New("lab: no command to run")
	}
	setDefaults(&o)
	qemu, err := lookQEMU()
	if err != nil {
		return 0, err
	}
	if o.Deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Deadline)
		defer cancel()
	}
	start := time.Now()
	dir, err := os.MkdirTemp(p.cache, "run-")
	if err != nil {
		return 0, fmt.Errorf("lab: %w", err)
	}
	defer os.RemoveAll(dir)
	initrd, err := p.image(dir, &o)
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(o.Progress, "lab: image made in %.1f s\n", time.Since(start).Seconds())

	status, err := p.boot(ctx, qemu, initrd, &o)
	// Once in some hundred boots an emulated machine stands still before its kernel has printed a line.
	for tries := 1; errors.Is(err, errNotUp) && tries < maxBoots; tries++ {
		fmt.Fprintf(o.Stderr, "lab: not up after %v, booted again\n", o.BootTime)
		status, err = p.boot(ctx, qemu, initrd, &o)
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		fmt.Fprintf(o.Stderr, "lab: ended at the deadline of %v\n", o.Deadline)
		return StatusDeadline, nil
	}
	return status, err
}

// maxBoots is how often the lab is booted until it is up.
const maxBoots = 3

var errNotUp = errors.New("the machine is not up in time")

func setDefaults(o *Options) {
	if o.BootTime == 0 {
		o.BootTime = 2 * time.Minute
	}
	if o.MemoryMiB == 0 {
		o.MemoryMiB = 4096
	}
	if o.CPUs == 0 {
		o.CPUs = 2
	}
	for _, w := range []*io.Writer{&o.Stdout, &o.Stderr, &o.Progress} {
		if *w == nil {
			*w = io.Discard
		}
	}
}

// image writes the initramfs to a file in dir.
func (p *Pieces) image(dir string, o *Options) (string, error) {
	initBinary := filepath.Join(dir, "init")
	if err := buildInit(initBinary); err != nil {
		return "", err
	}
	f, err := os.Create(filepath.Join(dir, "initrd"))
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := p.writeImage(w, initBinary, o); err != nil {
		return "", err
	}
	if err := w.Flush(); err != nil {
		return "", fmt.Errorf("lab: writing the image: %w", err)
	}
	return f.Name(), nil
}

// boot starts the emulator and stays until the command in it has ended or ctx has.
func (p *Pieces) boot(ctx context.Context, qemu, initrd string, o *Options) (int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("lab: socketpair: %w", err)
	}
	// Non-blocking, so that closing ours ends a read of it.
	if err := unix.SetNonblock(pair[0], true); err != nil {
		return 0, fmt.Errorf("lab: socketpair: %w", err)
	}
	port, theirs := os.NewFile(uintptr(pair[0]), "lab port"), os.NewFile(uintptr(pair[1]), "lab port, QEMU's end")
	defer port.Close()
	defer theirs.Close()

	var console lastBytes
	var complaints lastBytes
	cmd := exec.Command(qemu, p.qemuArgs(initrd, o)...)
	cmd.ExtraFiles = []*os.File{theirs} // descriptor 3
	cmd.Stdout, cmd.Stderr = &console, &complaints
	if o.Console != nil {
		cmd.Stdout = io.MultiWriter(&console, o.Console)
	}
	// A group of its own: ^C is for the command in the lab, not for the emulator. And no emulator outlives `lab run`;
	// the kernel's death signal is bound to the thread that started the child, hence the lock.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("lab: starting %s: %w", qemu, err)
	}
	theirs.Close()
	gone := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed below, or what it complained of is reported
		close(gone)
	}()

	type outcome struct {
		status int
		err    error
	}
	late := time.NewTimer(o.BootTime)
	defer late.Stop()
	ended := make(chan outcome, 1)
	go func() {
		status, err := converse(port, o, func() { late.Stop() })
		ended <- outcome{status, err}
	}()
	var result outcome
	select {
	case result = <-ended:
	case <-late.C:
		result.err = errNotUp
	case <-ctx.Done():
		result.err = ctx.Err()
	}
	_ = cmd.Process.Kill() // gone already is as good
	<-gone
	if result.err != nil && ctx.Err() == nil {
		return 0, fmt.Errorf("lab: %w\n--- QEMU said:\n%s--- the lab's console, at its end:\n%s",
			result.err, complaints.String(), console.String())
	}
	return result.status, result.err
}

// qemuArgs are the arguments of the outer emulator: "max" is a CPU with all that TCG has, SVM and nested paging among
// it, and each of its CPUs runs on a thread of its own.
func (p *Pieces) qemuArgs(initrd string, o *Options) []string {
	args := []string{
		"-accel", "tcg,thread=multi", "-cpu", "max", "-M", "q35",
		"-smp", strconv.Itoa(1 + o.CPUs), // one that runs no guests: see leaveFirstCPU in hack/lab/init
		"-m", strconv.Itoa(o.MemoryMiB),
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none",
		"-serial", "stdio",
		"-chardev", "socket,id=port,fd=3",
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=port,nr=1",
		"-kernel", p.Vmlinuz, "-initrd", initrd,
		// 64 MiB of huge pages, for what is to be tried on them. Where the emulator gets too little of a busy machine's
		// CPUs, the kernel would find too few ticks of its timer, and panic, if it counted them.
		"-append", "console=ttyS0 panic=-1 mitigations=off hugepages=32 no_timer_check quiet",
	}
	for i, disk := range o.Disks {
		id := "disk" + strconv.Itoa(i)
		args = append(args, "-drive", "if=none,format=raw,snapshot=on,id="+id+",file="+strings.ReplaceAll(disk, ",", ",,"),
			"-device", "virtio-blk-pci,drive="+id)
	}
	return args
}

// lastBytes keeps the end of what is written to it. One writer at a time, and read after that one is done.
type lastBytes struct{ b []byte }

func (l *lastBytes) Write(p []byte) (int, error) {
	const keep = 8 << 10
	l.b = append(l.b, p...)
	if len(l.b) > 2*keep {
		l.b = append(l.b[:0], l.b[len(l.b)-keep:]...)
	}
	return len(p), nil
}

func (l *lastBytes) String() string { return string(l.b) }
