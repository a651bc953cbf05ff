package plot

import (
	"fmt"
	"slices"

	"microvm/migration"
)

// stops draws when the guest stood still: the parts of the downtime, then what
// each vCPU waited for pages.
func (r *Record) stops(p panel, y float64) float64 {
	y = r.downtimeBar(p, y)
	return r.blocktimes(p, y+40)
}

// downtimeBar draws the parts of the downtime.
func (r *Record) downtimeBar(p panel, y float64) float64 {
	if r.total <= 0 {
		p.c.text("h ink", p.x, y, "Downtime")
		text := "The guest has not stopped, or it is not known for how long."
		if d := r.downtime; r.Side == migration.OwnerDestination && d.LoadNS+d.ResumeNS > 0 {
			text = fmt.Sprintf("Here: load %s, resume %s; the source knows the whole.", timeText(d.LoadNS), timeText(d.ResumeNS))
		}
		p.c.text("t dim", p.x, y+22, text)
		return y + 22
	}
	p.c.text("h ink", p.x, y, "Downtime: "+timeText(r.total))
	d := r.downtime
	parts := []struct {
		name, about string
		ns          int64
	}{
		{"pause", "vCPUs and devices come to rest", d.PauseNS},
		{"save", "device state is read", d.SaveNS},
		{"transfer", "on its way", d.TransferNS},
		{"load", "device state is loaded", d.LoadNS},
		{"resume", "vCPUs start", d.ResumeNS},
	}
	sum := 0.0
	for _, part := range parts {
		sum += float64(part.ns)
	}
	a := axis{p.x, p.w, max(sum, 1)}
	done := 0.0
	p.c.rect("none", p.x, y+14, p.w, 26, "")
	for _, part := range parts {
		from := a.at(done)
		done += float64(part.ns)
		p.c.rect(part.name, from, y+14, a.at(done)-from, 26, part.name+": "+timeText(part.ns))
	}
	y += 60
	for _, part := range parts {
		p.c.rect(part.name, p.x, y-9, 10, 10, "")
		p.c.text("t ink", p.x+16, y, part.name)
		p.c.text("t dim", p.x+86, y, part.about)
		p.c.text("t ink end", p.x+p.w-56, y, timeText(part.ns))
		p.c.text("t dim end", p.x+p.w, y, percentText(float64(part.ns), sum))
		y += 18
	}
	return y - 18
}

// mostVCPUs is how many of a large VM's vCPUs are drawn.
const mostVCPUs = 8

// blocktimes draws how long the vCPUs and devices waited for pages.
func (r *Record) blocktimes(p panel, y float64) float64 {
	count, w := r.waited()
	if count == 0 || len(w.VCPUBlocktimeNS) == 0 {
		return y - 40
	}
	p.c.text("h ink", p.x, y, "Blocktime: waiting for pages")
	type bar struct {
		name, class string
		ns          int64
	}
	var bars []bar
	for i, ns := range w.VCPUBlocktimeNS {
		bars = append(bars, bar{fmt.Sprintf("vCPU %d", i), "wait", ns})
	}
	// Of many, those that waited longest.
	slices.SortStableFunc(bars, func(a, b bar) int {
		if len(bars) <= mostVCPUs || a.ns == b.ns {
			return 0
		}
		if a.ns > b.ns {
			return -1
		}
		return 1
	})
	others := len(bars) - mostVCPUs
	bars = append(bars[:min(len(bars), mostVCPUs)], bar{"all at once", "pause", w.BlocktimeNS}, bar{"devices", "pause", w.DeviceBlocktimeNS})
	// The scale is the time in which there were pages to wait for.
	whole, most := int64(0), int64(1)
	for _, b := range bars {
		most = max(most, b.ns)
	}
	if r.Report != nil {
		whole = r.Report.PostcopyNS
	}
	a := axis{p.x + 86, p.w - 86 - 112, float64(max(most, whole))}
	y += 24
	for _, b := range bars {
		p.c.text("t ink", p.x, y, b.name)
		p.c.rect("none", a.from, y-9, a.length, 10, "")
		p.c.rect(b.class, a.from, y-9, a.at(float64(b.ns))-a.from, 10, b.name+": "+timeText(b.ns))
		p.c.text("t ink end", p.x+p.w-56, y, timeText(b.ns))
		if whole > 0 {
			p.c.text("t dim end", p.x+p.w, y, percentText(float64(b.ns), float64(whole)))
		}
		y += 18
	}
	if others > 0 {
		p.c.text("s dim", p.x, y, fmt.Sprintf("%d more vCPUs waited no longer than these", others))
		y += 18
	}
	if whole > 0 {
		p.c.text("s dim", p.x, y, "of the "+timeText(whole)+" after the switch")
		y += 18
	}
	return y - 18
}
