//go:build !race

package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"microvm/memslot/hugepool"
)

// Guests of hugeMemory have so many huge pages.
const (
	hugeMemory = "128M"
	hugePages  = 64
)

// hugeGuest starts a VM on huge pages; there are as many again for its
// destination.
func hugeGuest(t *testing.T, cmdline string, flags ...string) (*host, *process) {
	t.Helper()
	needKVM(t)
	hugepool.Need(t, 2*hugePages)
	h := newHost(t)
	return h, h.boot("a", cmdline, append([]string{"-m", hugeMemory}, flags...)...)
}

func TestABusyGuestOnHugePagesMovesWithoutHarm(t *testing.T) {
	for _, c := range []struct{ run, receive string }{
		{"--hugepages", "same"}, {"--hugepages", "off"}, {"--hugepages=false", "on"},
	} {
		for _, mode := range []string{"postcopy", "hybrid", "precopy"} {
			t.Run(fmt.Sprintf("run %s, receive --hugepages %s, by %s", c.run, c.receive, mode), func(t *testing.T) {
				h, source := hugeGuest(t, busy, c.run)
				dest, addr := h.receive("--name", "b", "--hugepages", c.receive)
				args := []string{"migrate", "a", addr, "--mode", mode, "--verify", "--report", "json"}
				if mode == "hybrid" {
					args = append(args, "--precopy-rounds", "1")
				}
				r := readReport(t, h.must(0, args...).stdout)
				if mode == "hybrid" && c.receive != "off" && (r.RAM.PagesDiscarded == 0 || r.RAM.PagesDiscarded%512 != 0) {
					t.Errorf("%d pages discarded: want whole host pages of 512", r.RAM.PagesDiscarded)
				}
				arrived(t, h, r, source, dest)
			})
		}
	}
}

func TestAConnectionThatBreaksOnHugePagesIsOpenedAgain(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	for _, receive := range []string{"same", "off"} {
		after := rng.Int64N(40 << 20)
		t.Run(fmt.Sprintf("receive --hugepages %s, after %d bytes", receive, after), func(t *testing.T) {
			h, source := hugeGuest(t, busy, "--hugepages")
			dest, addr := h.receive("--name", "b", "--hugepages", receive)
			relay := newRelay(t, addr, "RAM", after)
			migrate := h.start("migrate", "a", relay.addr, "--postcopy", "--verify", "--report", "json")
			relay.awaitHeld()
			relay.cut()
			relay.letPass()
			migrate.wait(0)
			r := readReport(t, migrate.stdout.String())
			if r.Recoveries == 0 {
				t.Error("the connection did not break")
			}
			arrived(t, h, r, source, dest)
		})
	}
}

// A destination without enough huge pages says how many there are and what to
// do, and the guest stays.
func TestTooFewHugePagesRefuseTheGuestBeforeAnythingMoves(t *testing.T) {
	h := newHost(t)
	pages := hugepool.Size(t) + 1024 // more than any test adds
	source := h.boot("a", "work=write order=rand check=1 mem=64 beat=100", "-m", fmt.Sprintf("%dM", 2*pages))
	dest, addr := h.receive("--name", "b", "--hugepages", "on")
	r := h.must(exitRefused, "migrate", "a", addr, "--postcopy")
	for _, want := range []string{fmt.Sprintf("needs %d pages of 2 MiB", pages), "are free", "sysctl vm.nr_hugepages=", "--hugepages off"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("%q is not in %q", want, r.stderr)
		}
	}
	dest.wait(exitFailure)
	source.goesOn(3)
	dest, addr = h.receive("--name", "b", "--hugepages", "off")
	arrived(t, h, h.migrate("a", addr), source, dest)
}

func TestHugepagesTakesThreeWords(t *testing.T) {
	h := newHost(t)
	if r := h.must(exitUsage, "receive", "--listen", "tcp:127.0.0.1:0", "--hugepages", "maybe"); !strings.Contains(r.stderr, "same, on or off") {
		t.Errorf("%q", r.stderr)
	}
}
