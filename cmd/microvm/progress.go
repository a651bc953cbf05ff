package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"microvm/migration"
)

// progress shows how a migration goes.
type progress interface {
	update(migration.Status)
	end()
}

func newProgress(mode string, w *os.File) (progress, error) {
	switch mode {
	case "auto":
		if term.IsTerminal(int(w.Fd())) {
			return &liveProgress{w: w}, nil
		}
		return noProgress{}, nil
	case "plain":
		return &plainProgress{w: w}, nil
	case "json":
		return &jsonProgress{out: json.NewEncoder(w)}, nil
	case "none":
		return noProgress{}, nil
	}
	return nil, usagef("--progress %s: has to be auto, plain, json or none", mode)
}

type noProgress struct{}

func (noProgress) update(migration.Status) {}
func (noProgress) end()                    {}

// jsonProgress writes each status as a line of JSON.
type jsonProgress struct{ out *json.Encoder }

// Whether anybody reads the progress is no concern of the migration.
func (p *jsonProgress) update(s migration.Status) { _ = p.out.Encode(s) }
func (p *jsonProgress) end()                      {}

// plainProgress writes each status as a line of text.
type plainProgress struct {
	w    io.Writer
	rate rate
}

func (p *plainProgress) update(s migration.Status) { fmt.Fprintln(p.w, p.rate.line(s)) }
func (p *plainProgress) end()                      {}

// liveProgress keeps one line of a terminal up to date.
type liveProgress struct {
	w    io.Writer
	rate rate
}

func (p *liveProgress) update(s migration.Status) {
	fmt.Fprintf(p.w, "\r\x1b[K%s", p.rate.line(s))
}

func (p *liveProgress) end() { fmt.Fprint(p.w, "\r\x1b[K") }

// rate works out how fast things go from one status to the next.
type rate struct{ last migration.Status }

func (r *rate) line(s migration.Status) string {
	elapsed := time.Duration(s.ElapsedNS - r.last.ElapsedNS)
	line := fmt.Sprintf("%-16s %8s left", s.Phase, bytesText(s.PagesLeft*pageSize))
	if r.last.ElapsedNS > 0 && elapsed > 0 {
		perSecond := func(now, before uint64) float64 { return float64(now-min(before, now)) / elapsed.Seconds() }
		speed := perSecond(s.BytesWire, r.last.BytesWire)
		line += fmt.Sprintf("  %8s/s  %5.0f faults/s", bytesText(uint64(speed)), perSecond(s.Faults, r.last.Faults))
		if speed > 0 {
			left := time.Duration(float64(s.PagesLeft*pageSize) / speed * float64(time.Second))
			line += fmt.Sprintf("  %v to go", left.Round(100*time.Millisecond))
		}
	}
	if s.Throttle > 0 {
		line += fmt.Sprintf("  guest slowed by %d %%", s.Throttle)
	}
	if s.P99NS > 0 {
		line += fmt.Sprintf("  p99 fault %v", roundTo3(time.Duration(s.P99NS)))
	}
	r.last = s
	return line
}
