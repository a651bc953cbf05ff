package main

import (
	"encoding/json"
	"strings"
	"testing"

	"microvm/migration"
	"microvm/vmm"
)

// A guest that stays within its first pages, so that it goes on however many of
// the others are elsewhere.
const modest = "fill=1 beat=100"

// breakFor gives a migration of VM a whose connections break for good while
// most of the memory is on its way.
func breakFor(h *host, dest string, flags ...string) (migrate *process) {
	h.t.Helper()
	relay := newRelay(h.t, dest, "RAM", 64<<20)
	migrate = h.start(append([]string{"migrate", "a", relay.addr, "--postcopy", "--verify", "--report", "json"}, flags...)...)
	relay.loseHeld()
	return migrate
}

func checkTakenUp(t *testing.T, r *migration.Report) {
	t.Helper()
	if r.Result != migration.ResultCompleted || r.Verified == nil || !*r.Verified || r.Recoveries != 1 || r.Error != "" {
		t.Errorf("report: %+v", r)
	}
}

// The network is out for longer than either side was told to wait.
func TestAMigrationThatIsPausedIsTakenUp(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", modest)
	dest, addr := h.receive("--name", "b", "--recover", "1s")
	migrate := breakFor(h, addr, "--recover", "1s")
	migrate.wait(exitPaused)
	if r := readReport(t, migrate.stdout.String()); r.Result != migration.ResultPaused || r.Owner != migration.OwnerDestination {
		t.Errorf("report: %+v", r)
	}
	if text := migrate.stderr.String(); !strings.Contains(text, "microvm migrate a [DEST] --resume") {
		t.Errorf("migrate does not say how to go on: %s", text)
	}
	var e vmm.MigrationEvent
	if err := json.Unmarshal([]byte(h.must(0, "migrate-status", "a", "--format", "json").stdout), &e); err != nil {
		t.Fatal(err)
	}
	if e.Status.Phase != migration.PhasePostcopyPaused || e.Report == nil || e.Error == nil || e.Status.PagesLeft == 0 {
		t.Errorf("migrate-status says %+v", e)
	}
	h.must(exitPaused, "migrate-status", "a", "--watch")
	h.must(exitRefused, "migrate", "a", addr, "--postcopy")
	h.must(exitPaused, "migrate", "a", "--resume", "--recover", "100ms") // nobody is there any more
	dest.goesOn(15)                                                      // longer than it was told to wait

	checkTakenUp(t, readReport(t, h.must(0, "migrate", "a", addr, "--resume", "--report", "json").stdout))
	h.endsThere(source, dest, "b")
}

// Another way is found while the source still tries the old one.
func TestAnotherAddressCountsAtOnce(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", modest)
	dest, addr := h.receive("--name", "b")
	migrate := breakFor(h, addr, "--recover", "1h")
	h.awaitPhase("a", migration.PhasePostcopyPaused)
	watch := h.start("migrate-status", "a", "--watch", "--format", "json")
	watch.awaitLine("{")
	plain := h.start("migrate-status", "a", "--watch")
	plain.awaitLine("postcopy-paused")

	checkTakenUp(t, readReport(t, h.must(0, "migrate", "a", addr, "--resume", "--report", "json").stdout))
	migrate.wait(0)
	checkTakenUp(t, readReport(t, migrate.stdout.String()))
	watch.wait(0)
	lines := strings.Split(strings.TrimSuffix(watch.stdout.String(), "\n"), "\n")
	for i, line := range lines {
		var e vmm.MigrationEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil || (e.Report != nil) != (i == len(lines)-1) {
			t.Errorf("line %d of %d of what migrate-status shows: %v: %s", i+1, len(lines), err, line)
		}
	}
	plain.wait(0)
	if text := plain.stdout.String(); !strings.Contains(text, ": completed, the guest is at the destination\n") || strings.Contains(text, "\x1b") {
		t.Errorf("migrate-status shows %q", text)
	}
	h.endsThere(source, dest, "b")
}

func TestWhatIsNotPausedIsNotTakenUp(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", busy)
	for _, args := range []string{
		"migrate a --resume --postcopy", "migrate a --resume --verify", "migrate a --resume --recover 0",
		"migrate a tcp:nowhere --resume", "migrate --resume", "migrate a tcp:127.0.0.1:1 b --resume",
	} {
		h.must(exitUsage, strings.Fields(args)...)
	}
	if r := h.must(exitFailure, "migrate", "a", "--resume"); !strings.Contains(r.stderr, "no migration") {
		t.Errorf("without a migration: %s", r.stderr)
	}
	h.must(exitFailure, "migrate-status", "a", "--watch")
	dest, addr := h.receive("--name", "b")
	relay := newRelay(t, addr, "COMPLETE", 0)
	migrate := h.start("migrate", "a", relay.addr, "--postcopy")
	relay.awaitHeld()
	if r := h.must(exitRefused, "migrate", "a", addr, "--resume"); !strings.Contains(r.stderr, "it is postcopy-active, and has to be postcopy-paused") {
		t.Errorf("resumed while it goes on: %s", r.stderr)
	}
	relay.letPass()
	migrate.wait(0)
	source.wait(0)
	dest.goesOn(3)
}
