package main

import (
	"strings"
	"testing"
)

// A guest that moves over several connections, in every mode, is as whole as
// over one, and what the destination does not take is refused with the guest
// where it was.
func TestAGuestMovesOverSeveralConnections(t *testing.T) {
	h := newHost(t)
	h.wander([]string{"a", "b", "c", "d"}, []string{"--max-connections", "4"}, func(step int, name, addr string) {
		mode := []string{"postcopy", "hybrid", "precopy"}[step]
		if step == 0 {
			r := h.must(exitRefused, "migrate", "a", addr, "--postcopy", "--connections", "5")
			for _, want := range []string{"over 5 connections", "at most 4", "--max-connections"} {
				if !strings.Contains(r.stderr+r.stdout, want) {
					t.Errorf("refused without %q:\n%s%s", want, r.stdout, r.stderr)
				}
			}
		}
		r := readReport(t, h.must(0, "migrate", name, addr, "--mode", mode, "--connections", "4", "--downtime", "1m", "--verify", "--report", "json").stdout)
		if r.Verified == nil || !*r.Verified || r.Channels != 6 || len(r.ChannelBytes) != 6 {
			t.Errorf("%s: report %+v", mode, r)
		}
	})
}

func TestNumbersOfConnectionsThatCannotBe(t *testing.T) {
	h := newHost(t)
	for _, n := range []string{"0", "17", "-1"} {
		h.must(exitUsage, "migrate", "a", "tcp:127.0.0.1:1", "--postcopy", "--connections", n)
		h.must(exitUsage, "receive", "--listen", "tcp:127.0.0.1:0", "--max-connections", n)
	}
}
