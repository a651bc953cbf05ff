package plot

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"strconv"
)

// canvas is an SVG image in the making. Coordinates are in pixels, from the top
// left; colours and fonts come from the classes of style.css. Every text goes
// through text, title or words, which escape it.
type canvas struct{ out bytes.Buffer }

// num writes a coordinate: a tenth of a pixel is finer than anybody sees.
func num(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		v = 0
	}
	return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64)
}

func (c *canvas) raw(format string, args ...any) { fmt.Fprintf(&c.out, format, args...) }

// words writes a text, with what XML reserves or forbids replaced.
func (c *canvas) words(s string) {
	_ = xml.EscapeText(&c.out, []byte(s)) // a buffer takes everything
}

// text writes s at (x, y), the foot of its letters; class says among others
// whether x is its beginning, middle or end.
func (c *canvas) text(class string, x, y float64, s string) {
	c.raw(`<text class="%s" x="%s" y="%s">`, class, num(x), num(y))
	c.words(s)
	c.raw("</text>\n")
}

// rect draws a rectangle; a viewer shows title, if there is one, under the mouse.
func (c *canvas) rect(class string, x, y, w, h float64, title string) {
	c.raw(`<rect class="%s" x="%s" y="%s" width="%s" height="%s"`, class, num(x), num(y), num(max(w, 0)), num(max(h, 0)))
	if title == "" {
		c.raw("/>\n")
		return
	}
	c.raw("><title>")
	c.words(title)
	c.raw("</title></rect>\n")
}

func (c *canvas) line(class string, x1, y1, x2, y2 float64) {
	c.raw(`<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"/>`+"\n", class, num(x1), num(y1), num(x2), num(y2))
}

// point is a place on a canvas.
type point struct{ x, y float64 }

// area fills what is between two lines, given from left to right.
func (c *canvas) area(class string, top, bottom []point) {
	c.raw(`<path class="%s" d="`, class)
	for i, p := range top {
		c.step(i == 0, p)
	}
	for i := range bottom {
		c.step(false, bottom[len(bottom)-1-i])
	}
	c.raw(`Z"/>` + "\n")
}

func (c *canvas) step(first bool, p point) {
	letter := "L"
	if first {
		letter = "M"
	}
	c.raw("%s%s %s", letter, num(p.x), num(p.y))
}

// letter is about how wide a letter of a text is, for its size of type: fonts
// differ, and there is no way to ask.
const letter = 0.54

func width(size float64, s string) float64 {
	return letter * size * float64(len([]rune(s)))
}

// panel is a part of the image with a headline.
type panel struct {
	c          *canvas
	x, y, w, h float64 // of what is drawn in it
}

// axis maps 0 to span onto a length.
type axis struct{ from, length, span float64 }

func (a axis) at(v float64) float64 {
	if a.span <= 0 {
		return a.from
	}
	return a.from + a.length*min(max(v/a.span, 0), 1)
}

// bottomAxis draws the marks of a horizontal axis under a panel.
func (p panel) bottomAxis(a axis, marks []tick) {
	for _, m := range marks {
		x := a.at(m.at)
		p.c.line("grid", x, p.y, x, p.y+p.h)
		p.c.text("t dim mid", x, p.y+p.h+15, m.text)
	}
}

// leftAxis draws those of a vertical one.
func (p panel) leftAxis(a axis, marks []tick) {
	for _, m := range marks {
		y := a.at(m.at)
		p.c.line("grid", p.x, y, p.x+p.w, y)
		p.c.text("t dim end", p.x-8, y+4, m.text)
	}
}

// entry is one of a legend.
type entry struct{ class, text string }

// legend writes entries in a row that ends at the right of the panel, and
// returns how wide it is.
func (p panel) legend(y float64, entries []entry) float64 {
	total := 0.0
	for _, e := range entries {
		total += width(12, e.text) + 34
	}
	x := p.x + p.w - total
	for _, e := range entries {
		x += 16
		p.c.rect(e.class, x, y-9, 10, 10, "")
		p.c.text("t ink", x+15, y, e.text)
		x += width(12, e.text) + 18
	}
	return total
}
