//go:build !race

package main

import (
	"fmt"
	"strings"
	"testing"

	"microvm/migration"
)

// A guest that writes moves in each way of sending its pages, between two
// processes, to memory that is what it was.
func TestABusyGuestMovesCompressedAndSummed(t *testing.T) {
	for _, mode := range []string{"postcopy", "hybrid", "precopy"} {
		for _, codec := range []string{"s2", "zstd"} {
			t.Run(mode+" "+codec, func(t *testing.T) {
				h := newHost(t)
				source := h.boot("a", busy+" span=16", "-m", "128M")
				dest, addr := h.receive("--name", "b")
				// Slow enough that compression pays however busy this host is.
				r := readReport(t, h.must(0, "migrate", "a", addr, "--mode", mode, "--precopy-rounds", "3", "--on-timeout", "postcopy",
					"--timeout", "20s", "--compress", codec, "--checksum", "--verify", "--bandwidth", "20M", "--postcopy-bandwidth", "20M",
					"--report", "json").stdout)
				if r.Result != migration.ResultCompleted || r.Verified == nil || !*r.Verified || r.Recoveries != 0 || !r.Checksum || r.RAM.RunsDamaged != 0 {
					t.Errorf("report: %+v", r)
				}
				c := r.Compression
				if c == nil || c.Codec != codec || c.RunsCompressed == 0 || c.BytesAfter > c.BytesBefore*3/4 {
					t.Errorf("%d bytes on the wire, compression: %+v", r.RAM.BytesWire, c)
				}
				h.endsThere(source, dest, "b")
			})
		}
	}
}

// Memory that does not become smaller is sent as it is, and the report says so.
func TestMemoryThatDoesNotCompressIsSentAsItIs(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", "fill=full mem=12 work=touch check=1 beat=100")
	dest, addr := h.receive("--name", "b")
	text := h.must(0, "migrate", "a", addr, "--postcopy", "--compress", "zstd", "--verify").stdout
	h.endsThere(source, dest, "b")
	var compressed, raw, skipped int
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "compressed"); ok {
			_, rest, _ = strings.Cut(rest, "; ")
			if _, err := fmt.Sscanf(rest, "of the runs %d compressed, %d would not become smaller, %d not tried", &compressed, &raw, &skipped); err != nil {
				t.Errorf("%q: %v", rest, err)
			}
		}
	}
	// Some is left of the program that filled it.
	if raw == 0 || skipped == 0 || compressed > raw {
		t.Errorf("%d runs compressed, %d raw, %d skipped:\n%s", compressed, raw, skipped, text)
	}
	if !strings.Contains(text, "memory left at ") || !strings.Contains(text, " without; tried while ") {
		t.Errorf("no reason is given:\n%s", text)
	}
}

func TestARunOfPagesThatIsDamagedOnItsWayIsSentAgain(t *testing.T) {
	for _, codec := range []string{"none", "s2"} {
		t.Run(codec, func(t *testing.T) {
			h := newHost(t)
			source := h.boot("a", busy)
			dest, addr := h.receive("--name", "b")
			relay := newRelay(t, addr, "", 0)
			relay.damage.Store(1 << 16)
			r := readReport(t, h.must(0, "migrate", "a", relay.addr, "--postcopy", "--compress", codec, "--checksum", "--verify", "--report", "json").stdout)
			if r.Verified == nil || !*r.Verified || r.RAM.RunsDamaged != 1 || r.Recoveries != 1 {
				t.Errorf("report: %+v", r)
			}
			dest.awaitError("damaged on the way: CRC-32C")
			h.endsThere(source, dest, "b")
		})
	}
}

func TestARunOfPagesThatIsDamagedBeforeTheSwitchLeavesTheGuestHere(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", busy)
	dest, addr := h.receive("--name", "b")
	relay := newRelay(t, addr, "", 0)
	relay.damage.Store(1 << 16)
	r := h.must(exitStays, "migrate", "a", relay.addr, "--mode", "precopy", "--checksum", "--report", "json")
	if rep := readReport(t, r.stdout); rep.Owner != migration.OwnerSource || !strings.Contains(rep.Error, "damaged on the way: CRC-32C") {
		t.Errorf("report: %+v", rep)
	}
	dest.wait(exitFailure)
	source.goesOn(5)
	h.must(0, "stop", "a", "--force")
	source.wait(0)
	checkScreen(t, screens(source))
}
