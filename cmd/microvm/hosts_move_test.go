//go:build !race

package main

import (
	"testing"

	"microvm/migration"
)

// moveBetweenHosts boots a busy guest on the left, moves it to the right, and
// hands both processes and the report to check.
func moveBetweenHosts(t *testing.T, during func(h *host, n *network), flags ...string) (report *migration.Report) {
	h := newHost(t)
	needKVM(t)
	n := newNetwork(t)
	var source, dest *process
	n.in(n.left, func() { source = h.start("run", "--name", "a", "-m", "256M", "-c", "2", "-p", busy) })
	n.in(n.right, func() { dest = h.start("receive", "--name", "b", "--listen", "tcp:"+n.rightIP+":0") })
	source.awaitLine("beat ")
	addr := dest.awaitLine("tcp:")
	mover := h.start(append([]string{"migrate", "a", addr, "--verify", "--report", "json"}, flags...)...)
	if during != nil {
		during(h, n)
	}
	mover.wait(0)
	h.endsThere(source, dest, "b")
	report = readReport(t, mover.stdout.String())
	if report.Result != migration.ResultCompleted || report.Verified == nil || !*report.Verified {
		t.Errorf("the move: %+v", report)
	}
	return report
}

func TestAGuestMovesBetweenTwoHosts(t *testing.T) {
	for _, mode := range []migration.Mode{migration.ModePostcopy, migration.ModeHybrid, migration.ModePrecopy} {
		t.Run(string(mode), func(t *testing.T) {
			// Precopy need not converge with this guest: then it switches.
			r := moveBetweenHosts(t, nil, "--mode", string(mode), "--timeout", "30s", "--on-timeout", "postcopy")
			if r.Mode != string(mode) {
				t.Errorf("mode %q", r.Mode)
			}
			if mode != migration.ModePostcopy && (r.Passes == 0 || r.RAM.PagesPrecopy == 0 || r.Switch == "") {
				t.Errorf("the passes of precopy: %+v", r)
			}
		})
	}
}

func TestAGuestSurvivesAHostThatChangesItsAddressOnTheWay(t *testing.T) {
	r := moveBetweenHosts(t, func(h *host, n *network) {
		h.awaitPhase("a", migration.PhasePostcopyActive)
		n.forget(n.leftIP, "10.111.0.3")
	}, "--postcopy", "--postcopy-bandwidth", "100M")
	if r.Recoveries == 0 {
		t.Errorf("nothing broke: %+v", r)
	}
}
