package migration

import (
	"errors"
	"testing"
)

// reading tells whether guest memory is still being read for its checksums.
func (s *Source) reading() bool {
	select {
	case <-s.sums.done:
		return false
	default:
		return true
	}
}

// Whoever called Run may unmap guest memory, or write to it, once Run has
// returned: nobody reads it then, for checksums that are not needed yet.
func TestNobodyReadsTheGuestsMemoryAfterRun(t *testing.T) {
	const size = 256 << 20 // as much as takes a while to read
	l := &ledger{}
	r := receiveWith(t, l, DestinationOptions{}, buildOwned(t, l, nil))
	addr, _ := newOutage(t, r.addr, point{returnLeg, "RUNNING", 1})
	s := sendBlank(t, l, addr, size)
	if err := s.run(); !errors.As(err, new(*PausedError)) {
		t.Fatalf("Run: %v", err)
	}
	if s.source.reading() {
		t.Fatal("memory is read after Run")
	}
	if _, err := s.source.Resume(t.Context(), Address{}, 1); !errors.As(err, new(*PausedError)) || s.source.reading() {
		t.Errorf("Resume: %v; memory is read after it: %v", err, s.source.reading())
	}
	// They go on from where they were, and are right.
	rep, err := s.source.Resume(t.Context(), r.addr, patience)
	s.arrived(r, rep, err, 1)
	if s.source.reading() {
		t.Error("memory is read after Resume")
	}
}

// sendBlank prepares the migration of a machine whose memory nobody has written
// to.
func sendBlank(t *testing.T, l *ledger, a Address, size uint64) *sender {
	t.Helper()
	m := newTestMachine(t, size)
	l.change(func() { l.source = true })
	s, err := NewSource(sourceSide{m, l}, a, Options{Verify: true, Log: quietLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	return &sender{t: t, ctx: t.Context(), machine: m, ledger: l, source: s}
}

// Checksums that were interrupted, again and again, are those of the memory.
func TestChecksumsGoOnWhereTheyWere(t *testing.T) {
	m := newTestMachine(t, 8<<20, 4096)
	m.fill(t)
	whole, broken := newChecksums(m.blocks), newChecksums(m.blocks)
	whole.start()
	<-whole.done
	for range 2100 {
		broken.start()
		broken.stop()
		broken.stop()
	}
	for i := range m.blocks {
		for page, sum := range whole.sums[i] {
			if broken.sums[i][page] != sum {
				t.Fatalf("block %d, page %d: %08x, want %08x", i, page, broken.sums[i][page], sum)
			}
		}
	}
	if len(broken.sums[0]) != 2048 || len(broken.sums[1]) != 1 {
		t.Errorf("%d and %d checksums", len(broken.sums[0]), len(broken.sums[1]))
	}
}
