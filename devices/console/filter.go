package console

import (
	"errors"
	"io"
)

// Help lists the keys, in lines that end as a terminal in raw mode needs.
const Help = "\r\nCtrl-a x  leave\r\nCtrl-a a  send Ctrl-a\r\nCtrl-a h  this help\r\n"

// ErrLeave is what [Filter.Read] gives once the user has typed Ctrl-a x.
var ErrLeave = errors.New("console: left by Ctrl-a x")

const prefix = 0x01 // Ctrl-a

// Filter is a reader that passes on what is for the guest and acts on what is
// for the monitor. It is for one goroutine.
type Filter struct {
	r       io.Reader
	help    io.Writer
	escaped bool // the last byte was the prefix
	err     error
}

// NewFilter returns a filter over r that writes [Help] to help when asked.
func NewFilter(r io.Reader, help io.Writer) *Filter {
	return &Filter{r: r, help: help}
}

// Read gives what was typed for the guest; what comes before Ctrl-a x is given
// before [ErrLeave], what comes after it never.
func (f *Filter) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for f.err == nil {
		n, err := f.r.Read(p)
		f.err = err
		if n = f.filter(p[:n]); n > 0 {
			return n, nil
		}
	}
	return 0, f.err
}

// filter keeps at the front of p what is for the guest, and returns how much.
func (f *Filter) filter(p []byte) int {
	n := 0
	for _, b := range p {
		if !f.escaped {
			if f.escaped = b == prefix; !f.escaped {
				p[n] = b
				n++
			}
			continue
		}
		f.escaped = false
		switch b {
		case 'a', prefix:
			p[n] = prefix
			n++
		case 'h':
			// Help that can't be shown is no reason to lose the guest.
			_, _ = io.WriteString(f.help, Help)
		case 'x':
			f.err = ErrLeave
			return n
		}
	}
	return n
}
