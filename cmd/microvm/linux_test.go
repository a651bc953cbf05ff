//go:build linuxguest

package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// linuxPatience is how long a test waits for Linux: the host may itself be
// emulated, and busy.
const linuxPatience = 8 * time.Minute

// linuxCmdline is what every Linux guest is told. Where one of its CPUs hangs, the
// console has what each of them is at.
const linuxCmdline = "console=ttyS0 panic=-1 sysctl.kernel.softlockup_all_cpu_backtrace=1"

// bootLinux starts a VM with the Linux guest of the lab, and waits until it
// is at its init. job is what it does then, in words of its command line.
func (h *host) bootLinux(name, memory string, cpus int, job string) *process {
	h.t.Helper()
	kernel, initrd := linuxFiles(h.t)
	return h.bootLinuxFrom(kernel, initrd, name, memory, cpus, job)
}

// bootLinuxFrom does so with another initramfs.
func (h *host) bootLinuxFrom(kernel, initrd, name, memory string, cpus int, job string) *process {
	h.t.Helper()
	p := h.start("run", "--name", name, "-k", kernel, "-i", initrd, "-p", linuxCmdline+" "+job,
		"-m", memory, "-c", fmt.Sprint(cpus))
	p.patience = linuxPatience
	p.awaitLine(fmt.Sprintf("GUEST READY cpus %d ", cpus))
	return p
}

// linuxFiles are the kernel and the initramfs of the lab's guests.
func linuxFiles(t *testing.T) (kernel, initrd string) {
	t.Helper()
	kernel, initrd = os.Getenv("MICROVM_GUEST_KERNEL"), os.Getenv("MICROVM_GUEST_INITRD")
	if kernel == "" || initrd == "" {
		t.Skip("MICROVM_GUEST_KERNEL and MICROVM_GUEST_INITRD are not set; run this test in the lab: make lab")
	}
	return kernel, initrd
}

func TestLinuxAnswersOnItsConsoleAndEndsAsItIsTold(t *testing.T) {
	for _, c := range []struct {
		name    string
		cpus    int
		command string
		status  int
		last    string // on the console
	}{
		// Powering off is how the guests of the other tests end.
		{"reboot", 1, "reboot -f", 32, "reboot: Restarting system"},
		// Debian's kernel has its driver of pvpanic in a module, which this
		// guest does not have: it restarts, as panic=-1 says.
		{"panic", 2, "echo c > /proc/sysrq-trigger", 32, "Kernel panic - not syncing: sysrq triggered crash"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			p := h.bootLinux("linux", "256M", c.cpus, "mv.job=shell")
			for _, want := range []string{"Linux version ", "Hypervisor detected: KVM"} {
				if !strings.Contains(p.stdout.String(), want) {
					t.Errorf("the boot's log lacks %q", want)
				}
			}
			// Not to be mistaken for the echo of what is typed.
			p.enter("echo answer $((6 * 7)) of $(nproc)")
			p.awaitLine(fmt.Sprintf("answer 42 of %d", c.cpus))
			if got := h.state("linux"); got != "running" {
				t.Errorf("ps says %q", got)
			}
			p.enter(c.command)
			p.wait(c.status)
			if !strings.Contains(p.stdout.String(), c.last) {
				t.Errorf("the console lacks %q", c.last)
			}
		})
	}
}
