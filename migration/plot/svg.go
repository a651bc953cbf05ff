package plot

import (
	"cmp"
	_ "embed"
	"fmt"
	"io"
	"strings"
	"time"

	"microvm/migration"
)

//go:embed style.css
var style string

// The image, in pixels.
const (
	imageWidth = 960
	left       = 76 // where panels begin, after the words of their axis
	right      = 28 // and what they leave at the other side
	half       = 408
	secondHalf = imageWidth - right - half
)

// SVG draws the migration.
func (r *Record) SVG(w io.Writer) error {
	body := &canvas{}
	height := r.draw(body)
	c := &canvas{}
	c.raw(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%s" viewBox="0 0 %d %s" role="img">`+"\n", imageWidth, num(height), imageWidth, num(height))
	c.raw("<title>")
	c.words(r.headline(longName) + ": " + r.Outcome())
	c.raw("</title>\n<style>\n%s</style>\n", style)
	c.rect("bg", 0, 0, imageWidth, height, "")
	_, err := c.out.WriteTo(w)
	if err == nil {
		_, err = body.out.WriteTo(w)
	}
	if err == nil {
		_, err = io.WriteString(w, "</svg>\n")
	}
	return err
}

// draw draws everything and returns how high it is.
func (r *Record) draw(c *canvas) float64 {
	y := r.head(c, 46)
	y = r.tiles(c, y+20)
	y = r.timeline(c, y+42)
	y = r.faultsOverTime(c, y+54)
	bottom := r.latencies(panel{c: c, x: left, w: half - left + right}, y+54)
	bottom = max(bottom, r.stops(panel{c: c, x: secondHalf, w: half}, y+54))
	return r.foot(c, bottom+34)
}

// longName is how much of a VM's name is written anywhere, in bytes.
const longName = 48

// headline names the migration, with at most so much of the VM's name.
func (r *Record) headline(most int) string {
	return cut(cmp.Or(r.VM, "a VM"), most) + r.manner()
}

// manner is how the VM migrates.
func (r *Record) manner() string {
	if r.Report != nil && r.Report.Mode != "" {
		return " · " + cut(r.Report.Mode, 20)
	}
	return " · migration"
}

// Outcome says how it ended, or where it is.
func (r *Record) Outcome() string {
	switch rep := r.Report; {
	case rep != nil:
		return fmt.Sprintf("%s, the guest is at the %s", rep.Result, rep.Owner)
	case r.end != nil:
		return fmt.Sprintf("%s, the guest is at the %s", cut(string(r.end.Result), 20), cut(string(r.end.Owner), 20))
	}
	return "goes on: " + cut(r.phase(), 40)
}

// Failure is why it did not complete, if it did not.
func (r *Record) Failure() string {
	switch {
	case r.Report != nil:
		return r.Report.Error
	case r.end != nil:
		return r.end.Error
	}
	return ""
}

// head writes who and how.
func (r *Record) head(c *canvas, y float64) float64 {
	// The name has what is left beside the outcome. Bold letters are wider.
	room := imageWidth - 28 - right - 24 - 1.15*width(14, r.Outcome())
	most := int((room - 1.15*width(24, r.manner())) / (1.15 * width(24, "x")))
	c.text("T ink", 28, y, r.headline(min(max(most, 8), longName)))
	class := "warn"
	switch outcome := r.Outcome(); {
	case strings.HasPrefix(outcome, string(migration.ResultCompleted)):
		class = "ok"
	case strings.HasPrefix(outcome, string(migration.ResultFailed)), strings.HasPrefix(outcome, string(migration.ResultLost)):
		class = "bad"
	}
	c.text("h end "+class, imageWidth-right, y, r.Outcome())
	y += 22
	var about []string
	if r.ID != "" {
		about = append(about, "migration "+cut(r.ID, 40))
	}
	if !r.Began.IsZero() && r.Began.Year() < 10000 {
		about = append(about, r.Began.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	if r.Side == migration.OwnerDestination {
		about = append(about, "as the destination saw it")
	}
	c.text("t dim", 28, y, strings.Join(about, " · "))
	for _, line := range wrap(r.Failure(), 140, 3) {
		y += 18
		c.text("t bad", 28, y, line)
	}
	return y
}

// tiles writes the figures that are asked for first.
func (r *Record) tiles(c *canvas, y float64) float64 {
	type tile struct{ name, value, note string }
	var all []tile
	add := func(name, value, note string) { all = append(all, tile{name, value, note}) }
	if r.total > 0 {
		add("Downtime", timeText(r.total), "the guest ran nowhere")
	} else {
		add("Downtime", "–", "")
	}
	took := int64(r.last)
	if rep := r.Report; rep != nil {
		took = rep.TotalNS
		note := ""
		if rep.PostcopyNS > 0 {
			note = "after the switch " + timeText(rep.PostcopyNS)
		}
		add("Total", timeText(took), note)
		add("Memory", bytesText(rep.RAM.BytesTotal), bytesText(rep.RAM.BytesWire)+" on the wire")
	} else if r.end != nil {
		add("Total", timeText(took), "")
	} else {
		add("So far", timeText(took), "")
	}
	count, waits := r.waited()
	if count > 0 {
		add("Page faults", countText(count), fmt.Sprintf("p50 %s, p99 %s", timeText(waits.P50NS), timeText(waits.P99NS)))
		add("Blocktime", timeText(waits.BlocktimeNS), "all vCPUs waited at once")
	} else {
		add("Page faults", "0", "none had to wait")
	}
	if n := len(r.recoveries); n > 0 {
		broken := time.Duration(0)
		for _, i := range r.broken() {
			broken += i.to - i.from
		}
		add("Recoveries", fmt.Sprint(n), "broken for "+timeText(int64(broken)))
	} else if r.Report != nil && r.Report.Recoveries > 0 {
		add("Recoveries", fmt.Sprint(r.Report.Recoveries), "")
	}
	step := float64(imageWidth-28-right) / float64(max(len(all), 5))
	c.line("rule", 28, y, imageWidth-right, y)
	for i, t := range all {
		x := 28 + float64(i)*step
		c.text("t dim", x, y+22, t.name)
		c.text("v ink", x, y+48, t.value)
		c.text("s dim", x, y+66, t.note)
	}
	c.line("rule", 28, y+80, imageWidth-right, y+80)
	return y + 80
}

// waited is how often and how long the guest waited for pages.
func (r *Record) waited() (count uint64, w faultsData) {
	if rep := r.Report; rep != nil {
		f := rep.Faults
		return f.Count, faultsData{Count: f.Count, Requested: f.Requested, P50NS: f.P50NS, P90NS: f.P90NS, P99NS: f.P99NS, MaxNS: f.MaxNS,
			BlocktimeNS: rep.BlocktimeNS, VCPUBlocktimeNS: rep.VCPUBlocktimeNS, DeviceBlocktimeNS: rep.DeviceBlocktimeNS}
	}
	if r.waits != nil {
		return r.waits.Count, *r.waits
	}
	return 0, w
}

// Waits is how long the guest had waited for pages when that was last heard of;
// nil if it never was.
func (r *Record) Waits() *migration.Waits {
	w := r.waits
	if w == nil {
		return nil
	}
	return &migration.Waits{
		Faults: migration.FaultReport{
			Count: w.Count, Requested: w.Requested, Async: w.Async,
			P50NS: w.P50NS, P90NS: w.P90NS, P99NS: w.P99NS, MaxNS: w.MaxNS, Phases: w.Phases,
		},
		BlocktimeNS: w.BlocktimeNS, VCPUBlocktimeNS: w.VCPUBlocktimeNS, DeviceBlocktimeNS: w.DeviceBlocktimeNS,
	}
}

// broken gives the recoveries; one that goes on lasts until now.
func (r *Record) broken() []interval {
	all := append([]interval(nil), r.recoveries...)
	if n := len(all); n > 0 && all[n-1].open {
		all[n-1].to = r.last
	}
	return all
}

// foot says what has no picture.
func (r *Record) foot(c *canvas, y float64) float64 {
	var notes []string
	if rep := r.Report; rep != nil {
		if rep.Switch != "" {
			notes = append(notes, "switch: "+rep.Switch)
		}
		if k := rep.Compression; k != nil {
			notes = append(notes, fmt.Sprintf("%s: %s to %s", cut(k.Codec, 20), bytesText(k.BytesBefore), bytesText(k.BytesAfter)))
		}
		if rep.Channels > 2 {
			notes = append(notes, fmt.Sprintf("%d channels", rep.Channels))
		}
		if t := rep.Throttle; t.MaxPercent > 0 {
			notes = append(notes, fmt.Sprintf("slowed down by up to %d %% for %s", t.MaxPercent, timeText(t.TookNS)))
		}
		if v := rep.Verified; v != nil && *v {
			notes = append(notes, "every page verified")
		}
	} else if r.why != "" {
		notes = append(notes, "switch: "+r.why)
	}
	if r.Torn {
		notes = append(notes, "the last line of the events is not whole")
	}
	for _, line := range wrap(strings.Join(notes, " · "), 150, 2) {
		c.text("s dim", 28, y, line)
		y += 16
	}
	return y + 8
}

// wrap breaks a text into lines of at most n letters, at spaces, and no more
// than so many of them.
func wrap(text string, n, lines int) (out []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		word = cut(word, n)
		switch {
		case line == "":
			line = word
		case len([]rune(line))+1+len([]rune(word)) <= n:
			line += " " + word
		default:
			if out = append(out, line); len(out) == lines {
				out[lines-1] += " …"
				return out
			}
			line = word
		}
	}
	if line != "" {
		out = append(out, line)
	}
	return out
}
