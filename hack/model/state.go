package model

import (
	"fmt"
	"strings"
)

// state is the whole system at one instant.
type state struct {
	src   source
	dst   destination
	conns [3]connection
}

// noConn is the number of no connection. The others are numbered in a fixed
// order (see tidy), so that states that differ by numbering only are one.
const noConn = -1

func beginning() state {
	return state{
		src: source{machine: machineRunning, pages: true, link: noConn},
		dst: destination{serving: noConn, pending: noConn, greeted: noConn},
	}
}

// tidy forgets connections that nobody holds, and numbers the others: that
// which the destination serves, those that wait there, that of the source. There
// are never more than three: the source's is the newest of all.
func (s *state) tidy() {
	var conns [3]connection
	moved := map[int8]int8{noConn: noConn}
	for _, c := range []*int8{&s.dst.serving, &s.dst.pending, &s.dst.greeted, &s.src.link} {
		to, done := moved[*c]
		if !done {
			to = int8(len(moved) - 1)
			conns[to] = s.conns[*c]
			moved[*c] = to
		}
		*c = to
	}
	s.conns = conns
}

// link is the source's connection; without one, one that is not open.
func (s *state) link() *connection {
	if s.src.link == noConn {
		return &connection{}
	}
	return &s.conns[s.src.link]
}

// session is the connection that the destination serves, likewise.
func (s *state) session() *connection {
	if s.dst.serving == noConn {
		return &connection{}
	}
	return &s.conns[s.dst.serving]
}

// builder collects the moves out of a state.
type builder struct {
	s     state
	m     mutation
	moves []move[state]
}

// do adds something that happens by itself, sooner or later.
func (b *builder) do(name string, f func(s *state)) { b.add(name, false, f) }

// trouble adds something that may happen, or not.
func (b *builder) trouble(name string, f func(s *state)) { b.add(name, true, f) }

func (b *builder) add(name string, trouble bool, f func(s *state)) {
	s := b.s
	f(&s)
	s.tidy()
	b.moves = append(b.moves, move[state]{name, s, trouble})
}

// system gives the moves of a protocol that is broken as m says.
func system(m mutation) func(state) []move[state] {
	return func(s state) []move[state] {
		b := &builder{s: s, m: m}
		b.sourceMoves()
		b.destinationMoves()
		b.networkMoves()
		return b.moves
	}
}

func (s state) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "source %v", s.src.at)
	if s.srcRuns() {
		b.WriteString(" (RUNS)")
	}
	fmt.Fprintf(&b, "  destination %v", s.dst.at)
	if s.dst.runs {
		b.WriteString(" (RUNS)")
	}
	if s.dst.fate == fateGivenUp {
		b.WriteString(" (given up)")
	}
	for _, c := range s.conns {
		if !c.open {
			continue
		}
		fmt.Fprintf(&b, "  [%v]", c)
	}
	return b.String()
}
