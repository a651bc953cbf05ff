//go:build linuxguest && debian

package main

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"microvm/migration"
)

// TestLinuxThatMayGoOnTwiceMakesItsRandomNumbersAnew: its driver vmgenid is told
// of the new VM generation ID of a guest that was taken back by hand, and has the
// kernel seed its generator again.
func TestLinuxThatMayGoOnTwiceMakesItsRandomNumbersAnew(t *testing.T) {
	kernel := os.Getenv("MICROVM_GUEST_VMGENID_KERNEL")
	if kernel == "" {
		t.Skip("MICROVM_GUEST_VMGENID_KERNEL is not set: a kernel with CONFIG_VMGENID=y; docs/testing.md says how to get one")
	}
	_, initrd := linuxFiles(t)
	h := newHost(t)
	source := h.start("run", "--name", "a", "-k", kernel, "-i", initrd, "-p", linuxCmdline+" mv.job=shell", "-m", "256M")
	source.patience = linuxPatience
	source.awaitLine("GUEST READY cpus 1 ")
	source.enter("echo drivers $(ls /sys/bus/acpi/drivers | grep -c vmgenid), forks $(dmesg | grep -c 'virtual machine fork')")
	source.awaitLine("drivers 1, forks 0")

	dest, addr := h.receive("--name", "b", "--recover", "1h")
	dest.patience = linuxPatience
	relay := newRelay(t, addr, "POSTCOPY_RUN", 0)
	migrate := h.start("migrate", "a", relay.addr, "--postcopy", "--recover", "1s")
	migrate.patience = linuxPatience
	relay.loseHeld()
	dest.awaitError("migration paused")
	dest.signal(unix.SIGTERM)
	h.awaitPhase("a", migration.PhasePostcopyPaused)
	migrate.wait(exitPaused)
	dest.signal(unix.SIGTERM)
	dest.wait(exitFailure)
	h.must(0, "migrate", "a", "--take-back", "--force")
	source.enter("while ! dmesg | grep 'virtual machine fork'; do sleep 0.1; done; echo forks now $(dmesg | grep -c 'virtual machine fork')")
	source.awaitLine("forks now 1")
	source.enter("poweroff -f")
	source.wait(0)
}
