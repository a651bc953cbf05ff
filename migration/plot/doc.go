// Package plot shows one migration as an SVG image, from its report or from
// its events (docs/events.md):
//
//	r, err := plot.Read(file)       r, err := plot.ReadReport(...)
//	err = r.SVG(w)                     err = r.HTML(w, text)
//
// An image is text, without scripts, of a fixed size, in fonts that every viewer
// has, and follows whether its viewer prefers light or dark. What is read is
// believed in nothing but its numbers: it is bounded, checked, and escaped.
package plot
