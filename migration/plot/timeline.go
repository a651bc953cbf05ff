package plot

import (
	"fmt"
	"time"

	"microvm/migration"
	"microvm/migration/wire"
)

// nearest is how far apart the points of a curve are, in pixels: a file of a
// hundred thousand samples makes an image of some kilobytes.
const nearest = 3

// kinds of pages, in the order in which they are stacked.
var kinds = []struct{ class, name string }{
	{"precopy", "precopy"}, {"pushed", "pushed"}, {"requested", "requested"}, {"zero", "zero"},
}

func (p pagesData) of() []uint64 { return []uint64{p.Precopy, p.Pushed, p.Requested, p.Zero} }

// sent is how many pages of each kind were sent in all.
func (r *Record) sent() (p pagesData, known bool) {
	if rep := r.Report; rep != nil {
		ram := rep.RAM
		asked := min(ram.PagesRequested, ram.PagesPostcopy)
		return pagesData{Precopy: ram.PagesPrecopy, Pushed: ram.PagesPostcopy - asked, Requested: asked, Zero: ram.PagesZero}, true
	}
	return r.pages.latest.pagesData, r.pages.any
}

func (p pagesData) total() (n float64) {
	for _, v := range p.of() {
		n += float64(v)
	}
	return n
}

// timeline draws the memory that was sent over time, by the kind of page.
func (r *Record) timeline(c *canvas, y float64) float64 {
	sent, known := r.sent()
	if !known || sent.total() == 0 {
		if r.Side == migration.OwnerDestination {
			c.text("t dim", 28, y, "Which pages were sent when, and why, is in the events of the source.")
			return y
		}
		c.text("t dim", 28, y, "No page was sent.")
		return y
	}
	p := panel{c: c, x: left, y: y + 14, w: imageWidth - left - right, h: 230}
	c.text("h ink", 28, y, "Memory sent, by the kind of its pages")
	var names []entry
	for i, n := range sent.of() {
		if n > 0 {
			names = append(names, entry{kinds[i].class, kinds[i].name + " " + countText(n)})
		}
	}
	p.legend(y, names)
	samples := r.pages.all()
	if len(samples) < 2 {
		return r.sentBar(p, sent)
	}
	r.phaseStrip(panel{c: c, x: p.x, y: p.y, w: p.w, h: 16}, max(r.last, 1))
	p.y += 20
	p.h -= 20
	const page = wire.PageSize
	most := 0.0
	for _, s := range samples {
		most = max(most, s.total()*page)
	}
	all := 0.0
	if r.Report != nil {
		all = float64(r.Report.RAM.BytesTotal)
	}
	top := max(most, min(all, 4*most)) * 1.16 // room for words
	t := axis{p.x, p.w, float64(max(r.last, 1))}
	v := axis{p.y + p.h, -p.h, top}
	p.leftAxis(v, byteTicks(top, 5))
	p.bottomAxis(t, timeTicks(t.span, 10))
	stopped := r.stop(p, t)
	p.broken(t, r.broken(), 0)
	// Each kind is drawn down to the axis, over those that stand on it.
	for k := len(kinds) - 1; k >= 0; k-- {
		if sent.of()[k] == 0 {
			continue
		}
		var line []point
		for i, s := range samples {
			x := t.at(float64(s.at))
			if len(line) > 1 && i < len(samples)-1 && x-line[len(line)-1].x < nearest {
				continue
			}
			sum := 0.0
			for _, n := range s.of()[:k+1] {
				sum += float64(n) * page
			}
			line = append(line, point{x, v.at(sum)})
		}
		p.c.area(kinds[k].class, line, []point{{line[0].x, v.from}, {line[len(line)-1].x, v.from}})
	}
	if all > 0 && all <= top {
		p.c.line("all", p.x, v.at(all), p.x+p.w, v.at(all))
		// Where the word for the downtime is not.
		text := "all of memory: " + bytesText(uint64(all))
		if stopped, _ := r.entered(string(migration.PhaseDevice)); 2*stopped < r.last {
			p.c.text("s dim end", p.x+p.w-6, v.at(all)-5, text)
		} else {
			p.c.text("s dim", p.x+6, v.at(all)-5, text)
		}
	}
	stopped()
	p.brokenFor(t, r.broken())
	c.line("rule", p.x, v.from, p.x+p.w, v.from)
	return p.y + p.h + 16
}

// sentBar is timeline for a report alone.
func (r *Record) sentBar(p panel, sent pagesData) float64 {
	a := axis{p.x, p.w, sent.total()}
	sum := 0.0
	for i, n := range sent.of() {
		from := a.at(sum)
		sum += float64(n)
		p.c.rect(kinds[i].class, from, p.y, a.at(sum)-from, 34, fmt.Sprintf("%s: %d pages", kinds[i].name, n))
	}
	p.c.text("s dim", p.x, p.y+52, "A report has no times: microvm migrate --events FILE writes what shows when which pages went.")
	return p.y + 56
}

// phases are what states are called here: the class and the name.
var phases = map[string][2]string{
	string(migration.PhaseSetup):          {"setup", "setup"},
	string(migration.PhaseActive):         {"active", "precopy: the guest runs at the source"},
	string(migration.PhaseDevice):         {"device", "switch: the guest stops and goes over"},
	string(migration.PhasePostcopyActive): {"postcopy", "postcopy: the guest runs at the destination"},
	string(migration.PhasePostcopyPaused): {"paused", "no connection"},
	string(migration.PhaseAdvise):         {"setup", "setup"},
	string(migration.PhaseListening):      {"setup", "setup"},
	string(migration.PhaseLoaded):         {"device", "loaded"},
	string(migration.PhaseRunning):        {"postcopy", "postcopy: the guest runs here"},
	string(migration.PhasePaused):         {"paused", "no connection"},
}

// phaseStrip draws the states one after the other.
func (r *Record) phaseStrip(p panel, until time.Duration) {
	t := axis{p.x, p.w, float64(until)}
	drawn := p.x
	for i, s := range r.states {
		end := until
		if i+1 < len(r.states) {
			end = r.states[i+1].at
		}
		of, known := phases[s.name]
		from, to := t.at(float64(s.at)), t.at(float64(end))
		if !known || to < drawn+0.5 {
			continue // too short to be seen
		}
		drawn = to
		p.c.rect("phase "+of[0], from, p.y, to-from, p.h, of[1]+": "+timeText(int64(end-s.at)))
		for _, name := range []string{of[1], cutAt(of[1], ':')} {
			if width(11, name)+8 <= to-from {
				p.c.text("s ink mid", (from+to)/2, p.y+12, name)
				break
			}
		}
	}
}

// stop marks the downtime. What it returns writes how long that was.
func (r *Record) stop(p panel, t axis) (say func()) {
	from, ok := r.entered(string(migration.PhaseDevice))
	if !ok || r.total <= 0 {
		return func() {}
	}
	// The state comes first, and the vCPUs may take their time to hear of it.
	x := t.at(float64(max(from, r.stopped)))
	w := max(t.at(float64(max(from, r.stopped))+float64(r.total))-x, 1.5)
	p.c.rect("stop", x, p.y, w, p.h, "downtime: "+timeText(r.total))
	text := "downtime " + timeText(r.total)
	return func() {
		if x+w+width(11, text)+8 > p.x+p.w {
			p.c.text("s ink end", x-4, p.y+14, text)
			return
		}
		p.c.text("s ink", x+w+4, p.y+14, text)
	}
}

// broken marks the times without connections. Times are less offset.
func (p panel) broken(t axis, all []interval, offset time.Duration) {
	drawn := p.x - 1
	for _, r := range all {
		from, to := t.at(float64(r.from-offset)), t.at(float64(r.to-offset))
		if to <= p.x || to < drawn+0.5 {
			continue // not in sight, or too close to the one before
		}
		drawn = to
		p.c.rect("broken", from, p.y, max(to-from, 1.5), p.h, brokenText(r))
		p.c.line("edge", from, p.y, from, p.y+p.h)
	}
}

func brokenText(r interval) string {
	return "connections broken for " + timeText(int64(r.to-r.from))
}

// brokenFor says how long each was, if there is room.
func (p panel) brokenFor(t axis, all []interval) {
	for i, r := range all {
		from, to := t.at(float64(r.from)), t.at(float64(r.to))
		text := brokenText(r)
		switch y := p.y + 50; {
		case width(11, text)+8 < to-from:
			p.c.text("s ink mid", (from+to)/2, y, text)
		case len(all) <= 4 && from+width(11, text)+8 < p.x+p.w:
			p.c.text("s ink", max(to, from+1.5)+4, y+float64(i)*15, text)
		}
	}
}

// cutAt is what comes before a mark.
func cutAt(s string, mark byte) string {
	for i := range len(s) {
		if s[i] == mark {
			return s[:i]
		}
	}
	return s
}
