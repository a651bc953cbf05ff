//go:build linuxguest

package main

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var sumLine = regexp.MustCompile(`(?m)^sum ok (\d+) up ([0-9.]+)\r?$`)

var asyncLine = regexp.MustCompile(`(?m)^async pages ready (\d+)\r?$`)

// checkLinux checks what the guest said of itself, wherever it was: every
// checksum right, uptime never less than before, no complaint in its kernel's
// log. It returns the number of checksums.
func checkLinux(t *testing.T, text string) (rounds int) {
	t.Helper()
	for line := range strings.Lines(text) {
		if regexp.MustCompile(`^(SUM|STRESS|FILL|UPTIME|DMESG) BAD`).MatchString(line) {
			t.Error(strings.TrimSpace(line))
		}
	}
	before := 0.0
	for i, m := range sumLine.FindAllStringSubmatch(text, -1) {
		up, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		if m[1] != strconv.Itoa(i+1) || up < before {
			t.Errorf("%q is line %d of its kind, after uptime %v", m[0], i+1, before)
		}
		before, rounds = up, i+1
	}
	return rounds
}

func TestLinuxGoesOnUnharmedWhereItMoves(t *testing.T) {
	const rounds = 6
	h := newHost(t)
	source := h.bootLinux("a", "512M", 2, "mv.job=checksum mv.fill=160 mv.rounds="+strconv.Itoa(rounds))
	source.await("a checksum", func(text string) bool { return sumLine.MatchString(text) })
	dest, addr := h.receive("--name", "b")
	dest.patience = linuxPatience
	migrate := h.start("migrate", "a", addr, "--postcopy", "--verify", "--report", "json")
	migrate.patience = linuxPatience
	migrate.wait(0)
	source.wait(0)
	t.Logf("report: %s", migrate.stdout)
	report := readReport(t, migrate.stdout.String())
	checkCompleted(t, report, 512<<20, 2)
	if report.RAM.PagesPostcopy < report.RAM.PagesTotal/2 {
		t.Errorf("most of the memory was zero: %+v", report.RAM)
	}
	// It powers off by itself, having looked at all of its memory once more.
	dest.wait(0)
	text := screens(source, dest)
	if n := checkLinux(t, text); n != rounds {
		t.Errorf("%d checksums of %d", n, rounds)
	}
	if !sumLine.MatchString(screens(dest)) {
		t.Error("no checksum was done at the destination")
	}
	// Both sides of the same thing: KVM's workers waited for pages, and the
	// guest ran something else until it was told that they had come.
	m := asyncLine.FindStringSubmatch(text)
	if report.Faults.Async == 0 || m == nil || m[1] == "0" {
		t.Errorf("%d of %d faults were asynchronous, the guest says %q", report.Faults.Async, report.Faults.Count, m)
	}
	t.Logf("asynchronous page faults: %d of %d; %q", report.Faults.Async, report.Faults.Count, m)
	for _, want := range []string{"\nfill ok", "\ndmesg ok"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q", strings.TrimSpace(want))
		}
	}
}
