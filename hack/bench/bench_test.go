package main

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestMedianAndRatiosAreTakenPairByPair(t *testing.T) {
	pairs := []pair{
		{Ours: figures{"t": 1}, QEMU: figures{"t": 2}},
		{Ours: figures{"t": 30}, QEMU: figures{"t": 10}},
		{Ours: figures{"t": 4}, QEMU: figures{"t": 4}},
		{Ours: figures{"t": 5}},                        // the other half failed
		{Ours: figures{"t": 5}, QEMU: figures{"t": 0}}, // nothing to divide by
	}
	got := spreadOf(ratios(pairs, "t"))
	if got == nil || *got != (spread{Median: 1, Min: 0.5, Max: 3}) {
		t.Errorf("ratios: %+v", got)
	}
	if m := median(column(pairs, ours, "t")); m != 5 {
		t.Errorf("median of ours: %v", m)
	}
	if m := median([]float64{4, 1, 3, 2}); m != 2.5 {
		t.Errorf("median of an even number: %v", m)
	}
	if spreadOf(nil) != nil {
		t.Error("nothing has a spread")
	}
}

const smaps = `00400000-00500000 r-xp 00000000 00:1b 1 /bin/vmm
Size:               1024 kB
Rss:                 800 kB
Anonymous:             0 kB
7f0000000000-7f0010000000 ---p 00000000 00:00 0
Size:             262144 kB
Rss:                   0 kB
Anonymous:             0 kB
7f0010000000-7f0018000000 rw-p 00000000 00:00 0
Size:             131072 kB
Rss:               70000 kB
Anonymous:         70000 kB
VmFlags: rd wr mr
7f0020000000-7f0040000000 rw-p 00000000 00:00 0
Size:             524288 kB
Rss:                 200 kB
Anonymous:           100 kB
`

func TestGuestMemoryIsLeftOutOfTheVMMs(t *testing.T) {
	f, err := beyondGuest(smaps, 128<<20)
	if err != nil {
		t.Fatal(err)
	}
	if f["beyond"] != 1000<<10 || f["anonymous"] != 100<<10 || f["guest"] != 70000<<10 {
		t.Errorf("figures: %v", f)
	}
	if _, err := beyondGuest(smaps, 1<<30); err == nil {
		t.Error("guest memory found where there is none")
	}
}

func TestCPUTimeIsReadWhateverTheName(t *testing.T) {
	const stat = "77 (a) b (c) S 1 77 77 0 -1 4194560 100 0 0 0 120 30 0 0 20 0 9 0 5 6 7\n"
	if ticks, err := parseStat(stat); err != nil || ticks != 150 {
		t.Errorf("%v ticks, error %v", ticks, err)
	}
	if _, err := parseStat("77 (x) S 1"); err == nil {
		t.Error("no error for a line cut short")
	}
}

func TestBenchmarkOutputIsRead(t *testing.T) {
	f, err := parseBenchmarks("goos: linux\nBenchmarkFind/slots=512/last-2   \t100000\t 3.25 ns/op\t 0 B/op\t 0 allocs/op\n" +
		"BenchmarkFind/slots=512/random   \t100000\t 17 ns/op\t 8 B/op\t 1 allocs/op\nPASS\n")
	if err != nil || f["slots=512/last"] != 3.25 || f["slots=512/random"] != 17 || f["allocs"] != 1 {
		t.Errorf("figures %v, error %v", f, err)
	}
	if _, err := parseBenchmarks("PASS\n"); err == nil {
		t.Error("no error without a benchmark")
	}
}

func TestTableSaysWhatIsAbsentAndWhatFailed(t *testing.T) {
	r := row{"stall", "stall", lookup{}, "t", milliseconds, "0.3x"}
	d := document{Versions: map[side]string{}, Rows: []result{
		fill(r, &measured{Pairs: []pair{{Ours: figures{"t": 2e6}, QEMU: figures{"t": 8e6, "other": 1}}}}),
		fill(r, &measured{Absent: map[side]string{ours: "not yet"}, Failed: []string{"pair 1: QEMU: broke"}}),
	}}
	var text strings.Builder
	if err := d.markdown(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| stall | 2.00 ms | 8.00 ms | 0.25x (0.25 to 0.25) | 0.3x |", "| not yet | - | - |", "- stall: pair 1: QEMU: broke"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in:\n%s", want, text.String())
		}
	}
}

func TestEachGroupOfRowsCanBeChosen(t *testing.T) {
	rows, err := chosen(table(1024), byDefault)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if r.of.lab() {
			t.Errorf("%s is measured by default and needs the lab", r.name)
		}
	}
	if _, err := chosen(table(1024), "postcopy,nothing"); err == nil || !strings.Contains(err.Error(), `"nothing"`) {
		t.Errorf("error %v", err)
	}
}

func TestTheFiguresOfAGuestsJobsAreRead(t *testing.T) {
	f, err := jobFigures("done read:1M:4 2048 2.5", "read:1M:4", 2)
	if err != nil || !slices.Equal(f, []float64{2048, 2.5}) {
		t.Errorf("%v, %v", f, err)
	}
	for _, line := range []string{"failed read:1M:4", "done read:1M:4", "done read:1M:4 0 0", "done read:1M:4 1 x", "done read:1M:4 1 2 3", "done read:1M:48 1 2"} {
		if f, err := jobFigures(line, "read:1M:4", 2); err == nil {
			t.Errorf("%q gives %v", line, f)
		}
	}
}

// turns is a measurement whose guests say who was asked for what.
type turns struct{ log *[]string }

type turn struct {
	turns
	s side
}

func (turns) lab() bool                                { return false }
func (turns) jobs() []string                           { return []string{"x", "y"} }
func (m turns) begin(_ *bench, s side) (worker, error) { return turn{m, s}, nil }
func (w turn) end()                                    { *w.log = append(*w.log, string(w.s)+" ends") }
func (w turn) do(job string) (float64, error) {
	*w.log = append(*w.log, string(w.s)+" "+job)
	if w.s == qemu && job == "y" && len(*w.log) > 4 {
		return 0, errors.New("no more")
	}
	return float64(len(*w.log)), nil
}

func TestGuestsThatStayTakeTurnsJobByJob(t *testing.T) {
	var log []string
	b := &bench{context: t.Context(), pairs: 3, log: io.Discard}
	m := b.measure(row{group: "turns", of: turns{&log}})
	want := []string{"microvm x", "QEMU x", "microvm y", "QEMU y", "microvm x", "QEMU x", "microvm y", "QEMU y", "QEMU ends", "microvm ends"}
	if !slices.Equal(log, want) {
		t.Errorf("%q, want %q", log, want)
	}
	if len(m.Pairs) != 1 || m.Pairs[0].Ours["y"] != 3 || m.Pairs[0].QEMU["x"] != 2 || len(m.Failed) != 1 {
		t.Errorf("measured: %+v", m)
	}
}
