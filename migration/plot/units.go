package plot

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A unit is a name for so many of something.
type unit struct {
	size float64
	name string
}

var (
	byteUnits  = []unit{{1, "B"}, {1 << 10, "KiB"}, {1 << 20, "MiB"}, {1 << 30, "GiB"}, {1 << 40, "TiB"}, {1 << 50, "PiB"}}
	timeUnits  = []unit{{1, "ns"}, {1e3, "µs"}, {1e6, "ms"}, {1e9, "s"}}
	countUnits = []unit{{1, ""}, {1e3, "k"}, {1e6, "M"}, {1e9, "G"}}
)

// in writes v, of at most three digits if it can, in the largest unit that
// leaves a whole part.
func in(units []unit, v float64) string {
	i := 0
	for i < len(units)-1 && math.Round(v/units[i].size*10)/10 >= units[i+1].size/units[i].size {
		i++
	}
	v /= units[i].size
	digits := 0
	if i > 0 && v < 99.95 {
		digits = 1
	}
	if i > 0 && v < 9.995 {
		digits = 2
	}
	text := strconv.FormatFloat(v, 'f', digits, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return strings.TrimRight(text+" "+units[i].name, " ")
}

func bytesText(v uint64) string { return in(byteUnits, float64(v)) }

// countText writes a count in full up to four digits.
func countText(v uint64) string {
	if v < 10_000 {
		return strconv.FormatUint(v, 10)
	}
	return in(countUnits, float64(v))
}

// timeText writes a duration for people: 1.23 ms, 45.6 s, 2 min 5 s, 3 h 20 min.
func timeText(ns int64) string {
	d := time.Duration(ns)
	switch {
	case d < 100*time.Second:
		return in(timeUnits, float64(ns))
	case d < 100*time.Minute:
		d = d.Round(time.Second)
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	}
	d = d.Round(time.Minute)
	return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
}

// tick is a mark on an axis.
type tick struct {
	at   float64
	text string
}

// niceStep is a step of 1, 2 or 5 times a power of base (10, or 2 for all of
// them) that divides span into at most n parts.
func niceStep(span float64, n int) float64 {
	least := span / float64(n)
	step := math.Pow(10, math.Floor(math.Log10(least)))
	for _, by := range []float64{1, 2, 5} {
		if step*by >= least {
			return step * by
		}
	}
	return step * 10
}

// ticks marks an axis from 0 to span, at most n+1 times, by step.
func ticks(span, step float64, text func(float64) string) (marks []tick) {
	for i := 0; float64(i)*step <= span*1.0001 && i < 100; i++ {
		marks = append(marks, tick{float64(i) * step, text(float64(i) * step)})
	}
	return marks
}

// byteTicks marks an axis of bytes by powers of two.
func byteTicks(span float64, n int) []tick {
	step := math.Exp2(math.Ceil(math.Log2(span / float64(n))))
	return ticks(span, max(step, 1), func(v float64) string { return in(byteUnits, v) })
}

func countTicks(span float64, n int) []tick {
	return ticks(span, max(niceStep(span, n), 1), func(v float64) string { return in(countUnits, v) })
}

// timeTicks marks an axis of nanoseconds, all in the same unit.
func timeTicks(span float64, n int) []tick {
	step := niceStep(span, n)
	for _, whole := range []time.Duration{time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour, 24 * time.Hour} {
		if span > float64(2*time.Minute) && span/float64(whole) <= float64(n) {
			step = float64(whole)
			break
		}
	}
	in := timeUnits[3]
	switch {
	case step >= float64(24*time.Hour):
		in = unit{float64(24 * time.Hour), "d"}
	case step >= float64(time.Hour):
		in = unit{float64(time.Hour), "h"}
	case step >= float64(time.Minute):
		in = unit{float64(time.Minute), "min"}
	case span < float64(time.Millisecond):
		in = timeUnits[1]
	case span < float64(time.Second):
		in = timeUnits[2]
	}
	return ticks(span, step, func(v float64) string {
		return strconv.FormatFloat(math.Round(v/in.size*1000)/1000, 'f', -1, 64) + " " + in.name
	})
}

// percentText writes a share.
func percentText(part, whole float64) string {
	if whole <= 0 {
		return "0 %"
	}
	switch p := 100 * part / whole; {
	case p == 0:
		return "0 %"
	case p < 0.1:
		return "< 0.1 %"
	case p < 10:
		return strconv.FormatFloat(p, 'f', 1, 64) + " %"
	default:
		return strconv.FormatFloat(p, 'f', 0, 64) + " %"
	}
}

// cut shortens a text to at most n bytes.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	text = text[:n-len("…")]
	for len(text) > 0 {
		if r, size := utf8.DecodeLastRuneInString(text); r != utf8.RuneError || size != 1 {
			break
		}
		text = text[:len(text)-1]
	}
	return text + "…"
}
