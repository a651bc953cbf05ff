package main

import (
	"errors"
	"fmt"
)

// side is who is measured.
type side string

const (
	ours side = "microvm"
	qemu side = "QEMU"
)

// pair is one run of each side, one after the other.
type pair struct {
	Ours figures `json:"microvm,omitempty"`
	QEMU figures `json:"qemu,omitempty"`
}

func (p pair) of(s side) figures {
	if s == ours {
		return p.Ours
	}
	return p.QEMU
}

// absentError says that a side has no such figure, which is not a failure.
type absentError struct{ why string }

func (e *absentError) Error() string { return e.why }

func absent(format string, args ...any) error { return &absentError{fmt.Sprintf(format, args...)} }

// measured is a measurement done: its pairs, and by side why there is nothing to compare.
type measured struct {
	Pairs  []pair          `json:"pairs"`
	Absent map[side]string `json:"absent,omitempty"`
	Failed []string        `json:"failed,omitempty"`
}

// measure takes turns, A B A B. What one side fails at is kept, and told; it does not end the others.
func (b *bench) measure(m measurement, name string) *measured {
	out := &measured{Absent: map[side]string{}}
	for i := range b.pairs {
		var p pair
		for _, s := range []side{ours, qemu} {
			if out.Absent[s] != "" || b.context.Err() != nil {
				continue
			}
			f, err := m.sample(b, s)
			var none *absentError
			switch {
			case errors.As(err, &none):
				out.Absent[s] = none.why
				fmt.Fprintf(b.log, "%s: %s: %s\n", name, s, none.why)
				continue
			case err != nil:
				out.Failed = append(out.Failed, fmt.Sprintf("pair %d: %s: %v", i+1, s, err))
				fmt.Fprintf(b.log, "%s: pair %d: %s: %v\n", name, i+1, s, err)
				continue
			}
			fmt.Fprintf(b.log, "%s: pair %d of %d: %s: %s\n", name, i+1, b.pairs, s, f)
			if s == ours {
				p.Ours = f
			} else {
				p.QEMU = f
			}
		}
		out.Pairs = append(out.Pairs, p)
	}
	return out
}
