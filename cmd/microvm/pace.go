package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"microvm/migration"
)

// pace works out how fast a migration goes, over the last seconds: from one
// status to the next it leaps, and nobody can read that.
type pace struct{ past []migration.Status }

// paceWindow is what it looks back on.
const paceWindow = 2 * time.Second

// A piece is a part of a line. Where there is no room for all, those of the
// highest rank go first.
type piece struct {
	text string
	rank int
}

// line describes a status in at most so many columns; 0 is no limit.
func (p *pace) line(s migration.Status, columns int) string {
	pieces := []piece{{string(s.Phase), 0}}
	add := func(rank int, format string, args ...any) {
		pieces = append(pieces, piece{fmt.Sprintf(format, args...), rank})
	}
	left := bytesText(s.PagesLeft * pageSize)
	first := p.since(s)
	if took := time.Duration(s.ElapsedNS - first.ElapsedNS); took > 0 {
		perSecond := func(now, before uint64) float64 { return float64(now-min(before, now)) / took.Seconds() }
		// What is left falls slower than bytes go where pages go again, and
		// faster where they are zeros.
		if falls := perSecond(first.PagesLeft, s.PagesLeft); falls > 0 && s.PagesLeft > 0 {
			left += fmt.Sprintf(", %v", timeLeft(float64(s.PagesLeft)/falls))
		}
		add(1, "%s left", left)
		add(2, "%s/s", bytesText(uint64(perSecond(s.BytesWire, first.BytesWire))))
		if s.Waits != nil || s.Faults > 0 {
			add(4, "%.0f faults/s", perSecond(s.Faults, first.Faults))
		}
		if s.P99NS > 0 {
			add(3, "p99 %v", roundTo3(time.Duration(s.P99NS)))
		}
	} else {
		add(1, "%s left", left)
	}
	if s.Throttle > 0 {
		add(5, "slowed by %d %%", s.Throttle)
	}
	return fit(pieces, columns)
}

// timeLeft is a time in seconds, as roughly as it is known.
func timeLeft(seconds float64) time.Duration {
	const longest = 1000 * time.Hour
	d := time.Duration(min(seconds, longest.Seconds()) * float64(time.Second))
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}

// fit puts pieces together, without those for which there is no room.
func fit(pieces []piece, columns int) string {
	for {
		var texts []string
		worst := 0
		for i, p := range pieces {
			texts = append(texts, p.text)
			if p.rank > pieces[worst].rank {
				worst = i
			}
		}
		line := strings.TrimRight(strings.Join(texts, "  "), " ")
		if columns <= 0 || utf8.RuneCountInString(line) <= columns {
			return line
		}
		if worst == 0 {
			return string([]rune(line)[:columns])
		}
		pieces = slices.Delete(pieces, worst, worst+1)
	}
}

// since remembers a status, and gives the one from which on to count.
func (p *pace) since(s migration.Status) migration.Status {
	s.Waits = nil
	for len(p.past) > 1 && s.ElapsedNS-p.past[1].ElapsedNS >= int64(paceWindow) {
		p.past = p.past[1:]
	}
	p.past = append(p.past, s)
	return p.past[0]
}
