//go:build !race

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"microvm/migration"
)

// overwriting is a guest that writes its memory twice as fast as slowLink
// takes it.
const (
	overwriting = "work=write order=rand fill=1 check=1 mem=8M rate=8192 beat=50"
	slowLink    = "16M"
)

// convergeFlags are of a precopy that this guest does not let come to its end.
var convergeFlags = []string{"--mode", "precopy", "--bandwidth", slowLink, "--downtime", "40ms", "--report", "json"}

func TestAGuestThatWritesFasterThanTheLinkNeedsAutoConverge(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", overwriting, "-m", "128M")
	source.goesOn(2)

	// Without, it ends as --on-timeout says, here or there.
	dest := h.start("receive", "--name", "b", "--listen", "tcp:127.0.0.1:0")
	r := h.must(exitTimeout, append([]string{"migrate", "a", dest.awaitLine("tcp:"), "--timeout", "4s"}, convergeFlags...)...)
	report := readReport(t, r.stdout)
	if report.Result != migration.ResultFailed || report.Owner != migration.OwnerSource || report.Passes < 3 || report.Throttle != (migration.ThrottleReport{}) {
		t.Errorf("without --auto-converge: %+v", report)
	}
	<-dest.ended
	source.goesOn(2)

	dest = h.start("receive", "--name", "b", "--listen", "tcp:127.0.0.1:0")
	r = h.must(0, append([]string{"migrate", "a", dest.awaitLine("tcp:"), "--auto-converge", "--connections", "4", "--verify"}, convergeFlags...)...)
	report = readReport(t, r.stdout)
	source.wait(0)
	if report.Throttle.MaxPercent == 0 || report.Throttle.TookNS == 0 || report.Faults.Count != 0 || report.Verified == nil || !*report.Verified {
		t.Errorf("with --auto-converge: %+v", report)
	}
	t.Logf("%d passes, slowed down by up to %d %%: %s", report.Passes, report.Throttle.MaxPercent, report.Switch)
	dest.goesOn(3)
	h.must(0, "stop", "b", "--force")
	dest.wait(0)
	checkScreen(t, screens(source, dest))
}

func TestAfterACancelASlowedGuestRunsAtFullSpeedAgain(t *testing.T) {
	h := newHost(t)
	// No rate: it runs as fast as it can, which is what is measured. The link
	// is so slow that even at the highest step the passes do not win.
	source := h.boot("a", "work=write order=rand fill=1 check=1 mem=1M beat=50", "-m", "128M")
	before := source.pace()
	dest := h.start("receive", "--name", "b", "--listen", "tcp:127.0.0.1:0")
	mover := h.start("migrate", "a", dest.awaitLine("tcp:"), "--mode", "precopy", "--auto-converge", "--downtime", "1ns", "--bandwidth", "1M")
	h.awaitStatus("a", "slowed by 9")
	slow := source.pace()
	h.must(0, "migrate-cancel", "a")
	mover.wait(exitStays)
	<-dest.ended
	after := source.pace()
	if slow*2 > before || slow*2 > after {
		t.Errorf("%.0f pages/s, %.0f when slowed by 90 %% or more, %.0f after the cancel", before, slow, after)
	}
	h.must(0, "stop", "a", "--force")
	source.wait(0)
	checkScreen(t, source.stdout.String())
}

// pace is how many pages a second the guest visits, between heartbeats that
// lie some time apart.
func (p *process) pace() float64 {
	p.t.Helper()
	const atLeast = 500 * time.Millisecond
	next := func() (pages int, now time.Time) {
		last := func(text string) (beat, pages int) {
			for line := range strings.Lines(text) {
				var b, n int
				if k, _ := fmt.Sscanf(line, "beat %d pages %d bad", &b, &n); k == 2 && strings.HasSuffix(line, "\n") {
					beat, pages = b, n
				}
			}
			return beat, pages
		}
		text, _ := p.stdout.read()
		was, _ := last(text)
		p.await("another heartbeat", func(text string) bool {
			var beat int
			beat, pages = last(text)
			return beat > was
		})
		return pages, time.Now()
	}
	from, began := next()
	for {
		if to, now := next(); now.Sub(began) >= atLeast {
			return float64(to-from) / now.Sub(began).Seconds()
		}
	}
}
