package plot

import "fmt"

// mostPasses is how many passes of precopy there is room for.
const mostPasses = 16

// precopyPasses draws for each pass what was sent, and what the guest wrote
// meanwhile: precopy ends well if that is less and less.
func (r *Record) precopyPasses(p panel, y float64) float64 {
	passes := r.passes.all()
	title := "Passes of precopy"
	if n := len(passes); n > mostPasses {
		passes = passes[n-mostPasses:]
		title = fmt.Sprintf("The last %d passes of precopy", mostPasses)
	}
	p.c.text("h ink", 28, y, title)
	p.legend(y, []entry{{"precopy", "sent"}, {"load", "written meanwhile"}})
	most := 1.0
	for _, s := range passes {
		most = max(most, float64(s.SentBytes), float64(s.Dirty))
	}
	p.y, p.h = y+26, 180
	v := axis{p.y + p.h, -p.h, most * 1.05}
	p.leftAxis(v, byteTicks(v.span, 4))
	step := p.w / float64(max(len(passes), 4))
	bar := min(step*0.38, 40)
	for i, s := range passes {
		x := p.x + (float64(i)+0.5)*step
		p.c.rect("precopy", x-bar, v.at(float64(s.SentBytes)), bar, v.from-v.at(float64(s.SentBytes)), "sent "+bytesText(s.SentBytes)+" in "+timeText(s.TookNS))
		p.c.rect("load", x+1, v.at(float64(s.Dirty)), bar, v.from-v.at(float64(s.Dirty)), "written meanwhile "+bytesText(s.Dirty))
		p.c.text("t dim mid", x, v.from+15, countText(s.Number))
		if text := timeText(s.TookNS); width(11, text) < step {
			p.c.text("s dim mid", x, v.from+30, text)
		}
	}
	p.c.line("rule", p.x, v.from, p.x+p.w, v.from)
	return v.from + 30
}
