package vmm

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// pagesVisited gives the count in the last whole heartbeat line.
func pagesVisited(text string) int {
	pages := 0
	for line := range strings.Lines(text) {
		var beat, n int
		if strings.HasSuffix(line, "\n") {
			if k, _ := fmt.Sscanf(line, "beat %d pages %d", &beat, &n); k == 2 {
				pages = n
			}
		}
	}
	return pages
}

// pace is how many pages a second the guest visits, between heartbeats that
// lie some time apart.
func pace(t *testing.T, out *screen) float64 {
	t.Helper()
	const atLeast = 500 * time.Millisecond
	next := func() (int, time.Time) {
		out.wait(t, lines(out.String(), "beat ")+1, "beat ")
		return pagesVisited(out.String()), time.Now()
	}
	from, began := next()
	for {
		if to, now := next(); now.Sub(began) >= atLeast {
			return float64(to-from) / now.Sub(began).Seconds()
		}
	}
}

func TestAThrottledGuestRunsLessAndThenAsBefore(t *testing.T) {
	config := tinyConfig("work=write order=rand fill=1 check=1 mem=8M beat=20")
	config.CPUs = 2
	vm, out := boot(t, config)
	out.wait(t, 3, "beat ")
	before := pace(t, out)
	vm.Throttle(95)
	slow := pace(t, out)
	vm.Throttle(0)
	after := pace(t, out)
	// 20 times less by intent; the machine may be busy with other things.
	if slow*3 > before || slow*3 > after {
		t.Errorf("%.0f pages/s, %.0f when not to run for 95 %% of the time, %.0f afterwards", before, slow, after)
	}
	if text := out.String(); strings.Contains(text, "BAD") {
		t.Errorf("the guest printed:\n%s", text)
	}
}

// Nothing here ever lets the vCPUs go on by itself.
func TestWhoStandsStillPausesResumesAndEndsAtOnce(t *testing.T) {
	config := tinyConfig("work=write fill=1 mem=8M beat=20")
	config.CPUs = 2
	vm, out := boot(t, config)
	out.wait(t, 1, "beat ")
	standStill := func() {
		s := vm.cpus
		s.mu.Lock()
		s.still = true
		s.kick()
		s.mu.Unlock()
	}
	standStill()
	if err := vm.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, d := range vm.Devices() {
		if _, err := d.Save(); err != nil {
			t.Errorf("save %s: %v", d.ID(), err)
		}
	}
	vm.Throttle(0)
	if err := vm.Resume(); err != nil {
		t.Fatal(err)
	}
	out.wait(t, lines(out.String(), "beat ")+2, "beat ")
	standStill()
	if err := vm.PowerOff(); err != nil {
		t.Fatal(err)
	}
	vm.Throttle(50) // of a VM that has ended: nothing is left running
	if vm.cpus.throttled != nil {
		t.Error("somebody still gives turns to vCPUs that are gone")
	}
}

func TestThrottleStormLosesNothing(t *testing.T) {
	config := tinyConfig("work=write order=rand fill=1 check=1 mem=8M beat=20")
	config.CPUs = 2
	vm, out := boot(t, config)
	out.wait(t, 1, "ready")
	for i := range 100 {
		vm.Throttle(i * 37 % 100)
		if err := vm.Pause(t.Context()); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if i%3 == 0 {
			vm.Throttle(0)
		}
		if err := vm.Resume(); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
	vm.Throttle(0)
	out.wait(t, lines(out.String(), "beat ")+5, "beat ")
	if text := out.String(); strings.Contains(text, "BAD") {
		t.Errorf("the guest printed:\n%s", text)
	}
}

func TestTurnsAddUpToTheShareAndAreShort(t *testing.T) {
	for percent := 1; percent <= 99; percent++ {
		run, still := turns(percent)
		period := run + still
		if share := 100 * still / period; int(share) != percent && int(share)+1 != percent {
			t.Errorf("%d %%: runs for %v, stands still for %v", percent, run, still)
		}
		if period > throttlePeriod || run <= 0 {
			t.Errorf("%d %%: a period of %v, of it to run %v", percent, period, run)
		}
	}
}
