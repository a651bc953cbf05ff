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

var sides = []side{ours, qemu}

// pair is one run of each side, one after the other.
type pair struct {
	Ours figures `json:"microvm,omitempty"`
	QEMU figures `json:"qemu,omitempty"`
}

func (p *pair) of(s side) *figures {
	if s == ours {
		return &p.Ours
	}
	return &p.QEMU
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

// failed keeps what one side failed at, and tells it.
func (m *measured) failed(b *bench, name string, pair int, s side, err error) {
	m.Failed = append(m.Failed, fmt.Sprintf("pair %d: %s: %v", pair+1, s, err))
	fmt.Fprintf(b.log, "%s: pair %d: %s: %v\n", name, pair+1, s, err)
}

// measure takes turns, A B A B, at what a row is of.
func (b *bench) measure(r row) *measured {
	switch m := r.of.(type) {
	case oneShot:
		return b.measureAnew(m, r.name)
	case standing:
		return b.measureStanding(m, r.group)
	}
	panic(fmt.Sprintf("%s: %T is no measurement", r.name, r.of))
}

// measureAnew goes on where one side fails.
func (b *bench) measureAnew(m oneShot, name string) *measured {
	out := &measured{Absent: map[side]string{}}
	for i := range b.pairs {
		p := pair{}
		for _, s := range sides {
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
				out.failed(b, name, i, s, err)
				continue
			}
			fmt.Fprintf(b.log, "%s: pair %d of %d: %s: %s\n", name, i+1, b.pairs, s, f)
			*p.of(s) = f
		}
		out.Pairs = append(out.Pairs, p)
	}
	return out
}

func (b *bench) measureStanding(m standing, name string) *measured {
	out := &measured{Absent: map[side]string{}}
	workers := map[side]worker{}
	for _, s := range sides {
		w, err := m.begin(b, s)
		if err != nil {
			out.failed(b, name, 0, s, err)
			return out
		}
		defer w.end()
		workers[s] = w
	}
	for i := range b.pairs {
		p := pair{figures{}, figures{}}
		for _, job := range m.jobs() {
			for _, s := range sides {
				if b.context.Err() != nil {
					return out
				}
				v, err := workers[s].do(job)
				if err != nil {
					out.failed(b, name, i, s, err)
					return out // the next pair would fail as this one
				}
				(*p.of(s))[job] = v
			}
			fmt.Fprintf(b.log, "%s: pair %d of %d: %s: %.4g and %.4g\n", name, i+1, b.pairs, job, p.Ours[job], p.QEMU[job])
		}
		out.Pairs = append(out.Pairs, p)
	}
	return out
}
