package main

import (
	"io"
	"os"

	"golang.org/x/term"
)

// paint colours words, on a terminal whose user wants colours and for nobody
// else: https://no-color.org. Each method gives a word as many bytes more as
// any other, so that the columns of a table stay where they are.
type paint bool

// paintFor tells whether what is written to w may be coloured.
func paintFor(w io.Writer) paint {
	f, ok := w.(*os.File)
	return paint(ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd())))
}

func (p paint) good(word string) string  { return p.with("32", word) }
func (p paint) bad(word string) string   { return p.with("31", word) }
func (p paint) doubt(word string) string { return p.with("33", word) }
func (p paint) plain(word string) string { return p.with("39", word) }

func (p paint) with(colour, word string) string {
	if !p {
		return word
	}
	return "\x1b[" + colour + "m" + word + "\x1b[0m"
}
