package main

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"microvm/migration"
)

// The word to run gets lost, and the destination ends without having run the
// VM. Nobody can tell its source so, but for a person.
func TestAVMThatNeverRanThereIsTakenBackByHand(t *testing.T) {
	for _, c := range []struct{ name, recover string }{{"paused", "1s"}, {"while the source still tries", "1h"}} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			source := h.boot("a", busy)
			dest, addr := h.receive("--name", "b", "--recover", "1h")
			relay := newRelay(t, addr, "POSTCOPY_RUN", 0)
			migrate := h.start("migrate", "a", relay.addr, "--postcopy", "--recover", c.recover, "--report", "json")
			relay.loseHeld()
			dest.awaitError("migration paused")
			dest.signal(unix.SIGTERM)
			h.awaitPhase("a", migration.PhasePostcopyPaused)
			if c.name == "paused" {
				migrate.wait(exitPaused)
			}
			// The destination may run it, for all that is known here.
			for _, args := range []string{"migrate a --take-back", "resume a", "migrate a " + addr + " --postcopy"} {
				if r := h.run(strings.Fields(args)...); r.status == 0 {
					t.Errorf("%s is allowed", args)
				}
			}
			r := h.must(exitRefused, "migrate", "a", "--take-back")
			if !strings.Contains(r.stderr, "make sure that it does not run the VM and never will") || !strings.Contains(r.stderr, "--resume") {
				t.Errorf("it does not say what it takes: %s", r.stderr)
			}
			if got := h.state("a"); got != "postcopy" {
				t.Errorf("it is %q", got)
			}
			dest.signal(unix.SIGTERM)
			dest.wait(exitFailure)
			if text := screens(dest); text != "" {
				t.Errorf("the guest ran at the destination: %q", text)
			}
			h.must(0, "migrate", "a", "--take-back", "--force")
			if c.name != "paused" {
				migrate.wait(exitStays)
				if r := readReport(t, migrate.stdout.String()); r.Owner != migration.OwnerSource || !strings.Contains(r.Error, "taken back") {
					t.Errorf("report: %+v", r)
				}
			}
			h.must(exitRefused, "migrate", "a", "--take-back", "--force") // it is here already
			if log := source.stderr.String(); strings.Count(log, "new generation ID") != 1 {
				t.Errorf("the guest does not know that it may go on twice: %s", log)
			}
			if r := h.must(exitFailure, "migrate-cancel", "a"); !strings.Contains(r.stderr, "the guest is here") {
				t.Errorf("migrate-cancel says: %s", r.stderr)
			}
			h.stays(source, "a")
			h.canStillMove(source, "a")
		})
	}
}

func TestAVMThatMayBeElsewhereIsNotTakenBack(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", modest)
	for _, args := range []string{"migrate a --force", "migrate a tcp:127.0.0.1:1 --take-back --force", "migrate a --take-back --resume", "migrate a --take-back --postcopy", "migrate --take-back"} {
		h.must(exitUsage, strings.Fields(args)...)
	}
	h.must(exitFailure, "migrate", "a", "--take-back", "--force") // no migration
	dest, addr := h.receive("--name", "b")
	migrate := breakFor(h, addr, "--recover", "1h")
	h.awaitPhase("a", migration.PhasePostcopyPaused)
	if r := h.must(exitRefused, "migrate", "a", "--take-back", "--force"); !strings.Contains(r.stderr, migration.ErrRanThere.Error()) {
		t.Errorf("stderr says: %s", r.stderr)
	}
	// The source tries all the same.
	h.must(0, "migrate", "a", addr, "--resume")
	migrate.wait(0)
	source.wait(0)
	dest.goesOn(3)
}
