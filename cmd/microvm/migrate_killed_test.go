//go:build !race

package main

// What a process that is killed costs: what it did until then other tests do with the race detector.

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"microvm/migration"
	"microvm/vmm"
)

func TestADestinationThatIsKilledBeforeRunCostsNothing(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", busy)
	for _, message := range beforeRun {
		dest, addr := h.receive("--name", "b")
		relay := newRelay(t, addr, message, 0)
		migrate := h.start("migrate", "a", relay.addr, "--postcopy", "--report", "json")
		relay.awaitHeld()
		dest.kill()
		relay.cut()
		migrate.wait(exitStays)
		if r := readReport(t, migrate.stdout.String()); r.Result != migration.ResultFailed || r.Owner != migration.OwnerSource || r.Error == "" {
			t.Errorf("killed before %s: report %+v", message, r)
		}
		h.stays(source, "a")
	}
	h.canStillMove(source, "a")
}

func TestADestinationThatHangsAndIsKilledCostsNothing(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", busy)
	dest, addr := h.receive("--name", "b")
	dest.signal(unix.SIGSTOP)
	migrate := h.start("migrate", "a", addr, "--postcopy")
	h.awaitMigrating("a")
	source.goesOn(3)
	dest.kill()
	migrate.wait(exitStays)
	h.stays(source, "a")
	h.canStillMove(source, "a")
}

func TestASourceThatIsKilledBeforeRunLeavesNothing(t *testing.T) {
	for _, message := range beforeRun {
		t.Run(message, func(t *testing.T) {
			h := newHost(t)
			source := h.boot("a", busy)
			dest, addr := h.receive("--name", "b", "--recover", "1s")
			relay := newRelay(t, addr, message, 0)
			migrate := h.start("migrate", "a", relay.addr, "--postcopy")
			relay.awaitHeld()
			source.kill()
			relay.cut()
			dest.wait(exitFailure)
			migrate.wait(exitFailure) // nobody can say how it ended
			if text := screens(dest); text != "" {
				t.Errorf("the guest ran at the destination: %q", text)
			}
			if got := h.must(0, "ps", "-q").stdout; got != "" {
				t.Errorf("ps lists %q", got)
			}
		})
	}
}

func TestADestinationThatIsKilledAfterRun(t *testing.T) {
	for _, message := range []string{"POSTCOPY_RUN", "RUNNING", "COMPLETE"} {
		t.Run("before "+message, func(t *testing.T) {
			h := newHost(t)
			source := h.boot("a", busy)
			dest, addr := h.receive("--name", "b")
			relay := newRelay(t, addr, message, 0)
			migrate := h.start("migrate", "a", relay.addr, "--postcopy", "--report", "json", "--recover", "1s")
			relay.awaitHeld()
			dest.kill()
			relay.cut()
			relay.letPass()
			migrate.wait(exitPaused)
			if r := readReport(t, migrate.stdout.String()); r.Result != migration.ResultPaused || r.Owner != migration.OwnerDestination || r.Error == "" {
				t.Errorf("report: %+v", r)
			}
			// The source keeps what it has, and does not run the guest.
			source.runs()
			if got := h.state("a"); got != "postcopy" {
				t.Errorf("it is %q at the source", got)
			}
			if r := h.must(0, "migrate-status", "a"); !strings.Contains(r.stdout, "paused") {
				t.Errorf("migrate-status says %s", r.stdout)
			}
			for _, command := range [][]string{{"resume", "a"}, {"stop", "a", "--force"}, {"migrate-cancel", "a"}} {
				h.must(exitFailure, command...)
			}
			screen := screens(source)
			source.signal(unix.SIGTERM)
			// Two signals at once are one.
			source.awaitError("not stopped")
			h.must(0, "inspect", "a")
			source.signal(unix.SIGTERM) // the second one is meant
			source.wait(0)
			if got := screens(source); got != screen {
				t.Errorf("the guest ran on: %q", strings.TrimPrefix(got, screen))
			}
		})
	}
}

// Pages that were at the source only are gone for good. The guest goes on with
// those it has, and never runs without the others; to end it is for a person,
// who is told that it is lost, even if a vCPU waits for such a page and does not
// come out of the kernel.
func TestASourceThatIsKilledAfterRunTakesNoMoreThanItsPages(t *testing.T) {
	for _, c := range []struct{ name, guest string }{{"a guest that waits", busy}, {"a guest that goes on", modest}} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			source := h.boot("a", c.guest)
			dest, addr := h.receive("--name", "b", "--recover", "100ms")
			relay := newRelay(t, addr, "RAM", 64<<20)
			migrate := h.start("migrate", "a", relay.addr, "--postcopy")
			relay.awaitHeld()
			source.kill()
			relay.cut()
			migrate.wait(exitFailure)
			dest.awaitError("migration paused")
			if c.guest == modest {
				dest.goesOn(10)
			}
			if got := h.state("b"); got != "postcopy" {
				t.Errorf("it is %q at the destination", got)
			}
			dest.signal(unix.SIGTERM)
			dest.awaitError("not stopped")
			if c.guest == modest {
				dest.goesOn(3)
			}
			dest.signal(unix.SIGTERM) // the second one is meant
			dest.wait(vmm.ExitLost)
			if text := dest.stderr.String(); !strings.Contains(text, "cannot go on") {
				t.Errorf("it does not say that the guest is lost: %s", text)
			}
			if text := screens(dest); strings.Contains(text, "BAD") || strings.Contains(text, "PANIC") {
				t.Errorf("the guest ran without its memory: %q", text)
			}
		})
	}
}
