//go:build linuxguest

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"microvm/migration"
)

// shuttleMoves is how often TestLinuxGoesBackAndForthOverABadLine moves its
// guest: twice, or what MICROVM_TEST_MOVES says.
func shuttleMoves(t *testing.T) int {
	t.Helper()
	text := os.Getenv("MICROVM_TEST_MOVES")
	if text == "" {
		return 2
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("MICROVM_TEST_MOVES=%s: has to be a number from 1 up", text)
	}
	return n
}

// stressFiles are those of linuxFiles, with stress-ng in the initramfs.
func stressFiles(t *testing.T) (kernel, initrd string) {
	t.Helper()
	kernel, initrd = linuxFiles(t)
	stress := os.Getenv("MICROVM_GUEST_STRESS")
	if stress == "" {
		t.Skip("MICROVM_GUEST_STRESS is not set; run this test in the lab: make lab, or lab run --stress")
	}
	text, err := os.ReadFile(stress)
	rest, rerr := os.ReadFile(initrd)
	both := filepath.Join(t.TempDir(), "initrd")
	if err := errors.Join(err, rerr, os.WriteFile(both, append(text, rest...), 0o600)); err != nil {
		t.Fatal(err)
	}
	return kernel, both
}

var stressLine = regexp.MustCompile(`(?m)^stress ok (\d+) operations\r?$`)

// A Linux guest with two CPUs, busy with checksums and stress-ng, moves back and forth
// between two hosts, by postcopy and hybrid in turn, over a line of 5 ms that
// loses 0.1 % of the packets, which bounds what one TCP connection carries; in
// half of the moves all connections break.
func TestLinuxGoesBackAndForthOverABadLine(t *testing.T) {
	moves := shuttleMoves(t)
	kernel, initrd := stressFiles(t)
	h := newHost(t)
	n := newNetwork(t)
	n.loopback()
	n.impair(5*time.Millisecond, 0.1, 0)
	sides := n.sides()
	var at *process
	n.in(sides[0].ns, func() {
		at = h.bootLinuxFrom(kernel, initrd, "g0", "256M", 2, "mv.job=stress mv.size=8 mv.fill=16 mv.stress=8")
	})
	processes := []*process{at}
	at.await("a checksum", sumLine.MatchString)
	for i := range moves {
		from, to := sides[i%2], sides[1-i%2]
		name := fmt.Sprintf("g%d", i)
		next := n.startIn(to, h, "receive", "--name", fmt.Sprintf("g%d", i+1), "--listen", "tcp:"+to.ip+":0")
		next.patience = linuxPatience
		addr := next.awaitLine("tcp:")
		mode := []migration.Mode{migration.ModePostcopy, migration.ModeHybrid}[i%2]
		args := []string{"--mode", string(mode), "--verify", "--report", "json", "--connections", "4"}
		broken := i%4 == 0 || i%4 == 3
		var line *breaker
		if broken {
			line = n.newBreaker(from, addr)
			addr = line.addr
			// So slow that there is time to break it.
			args = append(args, "--postcopy-bandwidth", "16M")
		}
		migrate := h.start(append([]string{"migrate", name, addr}, args...)...)
		migrate.patience = linuxPatience
		if broken {
			h.awaitPostcopy(name, migrate)
			line.cut()
		}
		migrate.wait(0)
		at.wait(0)
		r := readReport(t, migrate.stdout.String())
		t.Logf("move %d, %s: total %v, downtime %v, %d faults, p99 %v, %d recoveries, %d MiB on the wire; downtime %v; p99 of phases %v; TCP so far %v", i+1, mode,
			time.Duration(r.TotalNS).Round(time.Millisecond), time.Duration(r.DowntimeNS).Round(time.Millisecond),
			r.Faults.Count, time.Duration(r.Faults.P99NS).Round(time.Millisecond), r.Recoveries, r.RAM.BytesWire>>20,
			millis(r.Downtime), millis(r.Faults.Phases), n.tcpTrouble())
		if r.Result != migration.ResultCompleted || r.Verified == nil || !*r.Verified || r.Mode != string(mode) {
			text, _ := json.Marshal(r)
			t.Errorf("move %d: %s", i+1, text)
		}
		if broken && r.Recoveries == 0 {
			t.Errorf("move %d: nothing broke", i+1)
		}
		processes, at = append(processes, next), next
		// The guest works there.
		at.await("a checksum", sumLine.MatchString)
	}
	at.enter("")
	at.wait(0)
	text := screens(processes...)
	if m := stressLine.FindStringSubmatch(text); m == nil || m[1] == "0" {
		t.Errorf("stress-ng's verdict: %q", m)
	} else {
		t.Logf("stress-ng: %s operations verified", m[1])
	}
	if got := checkLinux(t, text); got < moves {
		t.Errorf("%d checksums in %d moves", got, moves)
	}
	for _, want := range []string{"\nfill ok", "\ndmesg ok"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q", strings.TrimSpace(want))
		}
	}
}

// millis are the figures of a part of a report, in milliseconds.
func millis(part any) string {
	text, _ := json.Marshal(part)
	var figures map[string]int64
	_ = json.Unmarshal(text, &figures)
	var words []string
	for _, name := range slices.Sorted(maps.Keys(figures)) {
		if !strings.Contains(name, "p50") {
			words = append(words, fmt.Sprintf("%s %.1f", strings.TrimSuffix(name, "_ns"), float64(figures[name])/1e6))
		}
	}
	return strings.Join(words, ", ") + " ms"
}

// awaitPostcopy waits until a VM is on its way by postcopy, or its move is over.
func (h *host) awaitPostcopy(name string, migrate *process) {
	h.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if r := h.run("migrate-status", name); strings.Contains(r.stdout, string(migration.PhasePostcopyActive)) {
			return
		}
		select {
		case <-migrate.ended:
			return
		case <-tick.C:
		}
	}
}
