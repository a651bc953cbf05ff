package plot

import (
	"fmt"
	"math"
	"time"

	"microvm/migration"
)

// mark is how many of something there had been at a time.
type mark struct {
	at time.Duration
	n  float64
}

// at gives how many there had been at a time between marks.
func at(marks []mark, t time.Duration) float64 {
	for i, m := range marks {
		if m.at < t {
			continue
		}
		if i == 0 || m.at == t {
			return m.n
		}
		before := marks[i-1]
		return before.n + (m.n-before.n)*float64(t-before.at)/float64(m.at-before.at)
	}
	if len(marks) == 0 {
		return 0
	}
	return marks[len(marks)-1].n
}

// asked tells how many pages had been asked for when: the source sees each
// request, the destination tells of its faults four times a second.
func (r *Record) asked() (marks []mark, what string) {
	for _, s := range r.pages.all() {
		marks = append(marks, mark{s.at, float64(s.Requests)})
	}
	if len(marks) > 1 {
		return marks, "Requests for pages per second"
	}
	// No wait ends while no page comes, and there are no ticks either.
	marks = nil
	broken, n := r.broken(), 0.0
	for _, s := range r.faults.all() {
		for len(broken) > 0 && broken[0].to <= s.at {
			marks = append(marks, mark{broken[0].to, n})
			broken = broken[1:]
		}
		n = float64(s.count)
		marks = append(marks, mark{s.at, n})
	}
	return marks, "Faults per second"
}

// faultsOverTime draws how often the guest touched a page that was not there.
// Its time begins with the switch, so that what comes then can be seen whatever
// came before.
func (r *Record) faultsOverTime(c *canvas, y float64) float64 {
	from, switched := r.entered(string(migration.PhasePostcopyActive), string(migration.PhaseRunning))
	marks, what := r.asked()
	if !switched || len(marks) < 2 || r.last <= from {
		return y - 54
	}
	if r.Side == migration.OwnerDestination {
		marks = append([]mark{{from, 0}}, marks...)
	}
	p := panel{c: c, x: left, y: y + 14, w: imageWidth - left - right, h: 110}
	span := r.last - from
	const widest = 140
	bins := int(min(max(span/(20*time.Millisecond), 8), widest))
	rates := make([]float64, bins)
	most, step := 0.0, span/time.Duration(bins)
	if step <= 0 {
		return y - 54
	}
	before := at(marks, from)
	for i := range rates {
		now := at(marks, from+time.Duration(i+1)*step)
		rates[i] = max(now-before, 0) / step.Seconds()
		before, most = now, max(most, rates[i])
	}
	if most == 0 {
		return y - 54
	}
	c.text("h ink", 28, y, what+", from the switch on")
	count, w := r.waited()
	p.legend(y, []entry{{"faults", fmt.Sprintf("%s requested, %s waited for", countText(w.Requested), countText(count))}})
	t := axis{p.x, p.w, float64(span)}
	v := axis{p.y + p.h, -p.h, most * 1.05}
	p.leftAxis(v, countTicks(v.span, 4))
	p.bottomAxis(t, timeTicks(t.span, 10))
	p.broken(t, r.broken(), from)
	var line []point
	for i, rate := range rates {
		line = append(line, point{t.at(float64(i) * float64(step)), v.at(rate)}, point{t.at(float64(i+1) * float64(step)), v.at(rate)})
	}
	c.area("faults", line, []point{{line[0].x, v.from}, {line[len(line)-1].x, v.from}})
	c.line("rule", p.x, v.from, p.x+p.w, v.from)
	return p.y + p.h + 16
}

// latencies draws the histogram of how long the guest waited for pages.
func (r *Record) latencies(p panel, y float64) float64 {
	if count, _ := r.waited(); count == 0 && r.passes.any {
		return r.precopyPasses(p, y)
	}
	p.c.text("h ink", 28, y, "How long a fault waits for its page")
	var buckets []uint64
	if r.Report != nil {
		buckets = r.Report.Faults.Histogram
	}
	first, last, most := -1, 0, uint64(0)
	for i, n := range buckets {
		if n > 0 {
			if first < 0 {
				first = i
			}
			last, most = i, max(most, n)
		}
	}
	count, w := r.waited()
	if first < 0 {
		text := "No fault had to wait."
		if count > 0 {
			text = fmt.Sprintf("p50 %s, p90 %s, p99 %s, max %s", timeText(w.P50NS), timeText(w.P90NS), timeText(w.P99NS), timeText(w.MaxNS))
		}
		p.c.text("t dim", 28, y+22, text)
		return y + 30
	}
	p.c.text("t dim", 28, y+20, fmt.Sprintf("p50 %s · p90 %s · p99 %s · max %s", timeText(w.P50NS), timeText(w.P90NS), timeText(w.P99NS), timeText(w.MaxNS)))
	// One empty bucket at each side, and not less than six in all.
	first, last = max(first-1, 0), last+1
	for last-first < 5 {
		last++
	}
	p.y, p.h = y+58, 180
	v := axis{p.y + p.h, -p.h, float64(most) * 1.05}
	p.leftAxis(v, countTicks(v.span, 4))
	step := p.w / float64(last-first+1)
	var numbers []func() // over the lines
	for i := first; i <= last; i++ {
		x := p.x + float64(i-first)*step
		if i < len(buckets) && buckets[i] > 0 {
			p.c.rect("waits", x+1, v.at(float64(buckets[i])), step-2, v.from-v.at(float64(buckets[i])),
				fmt.Sprintf("%s: %d", bucketText(i), buckets[i]))
			if text := countText(buckets[i]); width(11, text) <= step {
				numbers = append(numbers, func() { p.c.text("s dim mid over", x+step/2, v.at(float64(buckets[i]))-4, text) })
			}
		}
		if every := int(math.Ceil(46 / step)); i > first && (i-first)%every == 0 {
			p.c.text("s dim mid", x, v.from+15, edgeText(bucketFrom(i)))
		}
	}
	for _, m := range []struct {
		name string
		ns   int64
	}{{"p50", w.P50NS}, {"p99", w.P99NS}} {
		x := p.x + (place(m.ns)-float64(first))*step
		if x < p.x || x > p.x+p.w {
			continue
		}
		p.c.line("mark", x, p.y-14, x, v.from)
		p.c.text("s ink mid", x, p.y-18, m.name)
	}
	for _, draw := range numbers {
		draw()
	}
	p.c.line("rule", p.x, v.from, p.x+p.w, v.from)
	return v.from + 16
}

// bucketFrom is the shortest wait in a bucket, in nanoseconds.
func bucketFrom(i int) int64 {
	if i == 0 {
		return 0
	}
	return int64(min(math.Ldexp(1000, i-1), math.MaxInt64/2))
}

// edgeText writes it with two digits.
func edgeText(ns int64) string {
	if ns > 100 {
		unit := math.Pow(10, math.Floor(math.Log10(float64(ns)))-1)
		ns = int64(math.Round(float64(ns)/unit) * unit)
	}
	return timeText(ns)
}

func bucketText(i int) string {
	if i == 0 {
		return "under 1 µs"
	}
	return timeText(bucketFrom(i)) + " to " + timeText(bucketFrom(i+1))
}

// place is where a wait is on the axis of buckets.
func place(ns int64) float64 {
	us := float64(ns) / 1000
	if us <= 1 {
		return max(us, 0)
	}
	return 1 + math.Log2(us)
}
