// Command init is process 1 of the lab: it makes a bare kernel into a KVM host, runs one command as root, and tells
// `lab run` about it over a virtio-serial port (package frame). It is the same file twice: process 1, which only
// reaps orphans, and its child, the session, which does the work.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func main() {
	if os.Getpid() != 1 {
		os.Exit(session())
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
