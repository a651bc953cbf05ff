package main

import (
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// An inPlace shows a text that changes, in its place on a terminal.
type inPlace struct {
	terminal *os.File
	begun    bool
}

// show replaces the text. What does not fit is left out: a line that wraps, or
// a screen that scrolls, would leave the next text in another place. Each line
// is overwritten before the rest of it is cleared, all in one write, so that
// nothing flickers.
func (s *inPlace) show(text string) error {
	columns, rows, err := term.GetSize(int(s.terminal.Fd()))
	if err != nil || columns <= 0 || rows <= 1 {
		columns, rows = 80, 24
	}
	var out strings.Builder
	out.WriteString("\x1b[H") // to the top left
	if !s.begun {
		s.begun = true
		out.WriteString("\x1b[J") // and all below away
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) >= rows {
		lines = lines[:rows-1]
	}
	for _, line := range lines {
		out.WriteString(string(firstOf([]rune(strings.TrimRight(line, " ")), columns)))
		out.WriteString("\x1b[K\r\n")
	}
	out.WriteString("\x1b[J")
	_, err = io.WriteString(s.terminal, out.String())
	return err
}

// end leaves the terminal as it is, but for what a key may have printed below.
func (s *inPlace) end() {
	if s.begun {
		_, _ = io.WriteString(s.terminal, clearLine)
	}
}

// firstOf is at most n of the elements of s, the first.
func firstOf[T any](s []T, n int) []T { return s[:min(len(s), max(n, 0))] }
