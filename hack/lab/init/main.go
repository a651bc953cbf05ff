// Command init is process 1 of the lab: it makes a bare kernel into a KVM host, runs one command as root, and tells
// `lab run` about it over a virtio-serial port (package frame). It is the same file twice: process 1, which only
// reaps orphans, and its child, the session, which does the work.
package main

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

func main() {
	if os.Getpid() != 1 {
		os.Exit(session())
	}
	if err := leaveFirstCPU(); err != nil {
		fmt.Println("lab init: keeping the session off CPU 0:", err)
	}
	// The kernel hands process 1 an environment without PATH.
	child, err := os.StartProcess("/init", []string{"/init", "session"}, &os.ProcAttr{
		Env:   []string{"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/root", "TERM=linux"},
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		fmt.Println("lab init: starting the session:", err)
	} else {
		reapUntil(child.Pid)
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("lab init: powering off:", err)
	}
}

// reapUntil waits for every child that dies, among them orphans that the command left behind, until pid does.
func reapUntil(pid int) {
	for {
		got, err := unix.Wait4(-1, nil, 0, nil)
		if got == pid || err == unix.ECHILD {
			return
		}
	}
}

// leaveFirstCPU binds this thread, and what it starts, to every CPU but the first: no virtual machine may run there.
//
// QEMU's emulation has a race that breaks SVM on its first CPU (7.2 and 10.0 have it). When any CPU loads FPU state
// without a pending exception, that CPU's thread clears IGNNE in the first CPU's hflags2, with no lock and no atomic
// operation. Where this meets a #VMEXIT or a VMRUN on the first CPU, what was written there at the same time is lost:
// nested paging stays on in the host, or interrupts come before STGI. A guest then spins for ever or resets, or the
// lab's own kernel dies; with two CPUs one boot of Linux in five ended so. A first CPU without guests loses nothing.
func leaveFirstCPU() error {
	runtime.LockOSThread()
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		return fmt.Errorf("sched_getaffinity: %w", err)
	}
	cpus.Clear(0)
	if err := unix.SchedSetaffinity(0, &cpus); err != nil {
		return fmt.Errorf("sched_setaffinity to %d CPUs: %w", cpus.Count(), err)
	}
	return nil
}
