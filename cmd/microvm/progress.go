package main

import (
	"encoding/json"
	"io"
	"os"
	"sync"

	"golang.org/x/term"

	"microvm/migration"
)

// progress shows how a migration goes.
type progress interface {
	update(migration.Status)
	end()
}

func newProgress(mode string, w *os.File) (progress, error) {
	switch mode {
	case "auto":
		if term.IsTerminal(int(w.Fd())) {
			return &liveProgress{terminal: w}, nil
		}
		return noProgress{}, nil
	case "plain":
		return &plainProgress{w: w}, nil
	case "json":
		return &jsonProgress{out: json.NewEncoder(w)}, nil
	case "none":
		return noProgress{}, nil
	}
	return nil, usagef("--progress %s: has to be auto, plain, json or none", mode)
}

type noProgress struct{}

func (noProgress) update(migration.Status) {}
func (noProgress) end()                    {}

// jsonProgress writes each status as a line of JSON.
type jsonProgress struct{ out *json.Encoder }

// Whether anybody reads the progress is no concern of the migration.
func (p *jsonProgress) update(s migration.Status) { _ = p.out.Encode(s) }
func (p *jsonProgress) end()                      {}

// plainProgress writes each status as a line of text.
type plainProgress struct {
	w    io.Writer
	pace pace
}

func (p *plainProgress) update(s migration.Status) {
	_, _ = io.WriteString(p.w, p.pace.line(s, 0)+"\n")
}
func (p *plainProgress) end() {}

// liveProgress keeps one line of a terminal up to date. What else is written to
// the terminal meanwhile has to be written through it.
type liveProgress struct {
	terminal *os.File

	mu   sync.Mutex
	pace pace
	line string // that is there now
}

// clearLine goes to the beginning of a terminal's line and empties it.
const clearLine = "\r\x1b[K"

func (p *liveProgress) update(s migration.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// A line that is too long would go on in the next, which stays.
	columns, _, err := term.GetSize(int(p.terminal.Fd()))
	if err != nil || columns <= 0 {
		columns = 80
	}
	p.line = p.pace.line(s, columns-1)
	_, _ = io.WriteString(p.terminal, clearLine+p.line)
}

func (p *liveProgress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.line != "" {
		p.line = ""
		_, _ = io.WriteString(p.terminal, clearLine)
	}
}

// Write writes whole lines above the one that is kept up to date.
func (p *liveProgress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.line == "" {
		return p.terminal.Write(b)
	}
	text := append([]byte(clearLine), b...)
	if _, err := p.terminal.Write(append(text, p.line...)); err != nil {
		return 0, err
	}
	return len(b), nil
}
