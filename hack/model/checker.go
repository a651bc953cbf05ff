package model

import (
	"fmt"
	"slices"
	"strings"
)

// move is one step of the system: somebody does something, and it is in
// another state.
type move[S comparable] struct {
	name string
	to   S
	// trouble marks what nobody can count on to happen, or not to happen:
	// something breaks, a deadline passes, a user interferes.
	trouble bool
}

// edge is a move to a state that has been numbered.
type edge struct {
	to      int32
	trouble bool
}

// graph is every reachable state. States are numbered in the order in which
// they were found, breadth first, so that the way to each is a shortest one.
type graph[S comparable] struct {
	states []S
	edges  [][]edge
	parent []int32 // the state that this one was found from; itself for the first
	via    []string
	moves  int
}

// explore finds all states that moves leads to from start.
func explore[S comparable](start S, moves func(S) []move[S]) *graph[S] {
	g := &graph[S]{states: []S{start}, parent: []int32{0}, via: []string{"the beginning"}}
	number := map[S]int32{start: 0}
	for i := int32(0); int(i) < len(g.states); i++ {
		next := moves(g.states[i])
		out := make([]edge, 0, len(next))
		for _, m := range next {
			n, known := number[m.to]
			if !known {
				n = int32(len(g.states))
				number[m.to] = n
				g.states = append(g.states, m.to)
				g.parent = append(g.parent, i)
				g.via = append(g.via, m.name)
			}
			out = append(out, edge{n, m.trouble})
		}
		g.edges = append(g.edges, out)
		g.moves += len(out)
	}
	return g
}

// never finds the first state that is bad.
func (g *graph[S]) never(bad func(S) bool) (n int32, found bool) {
	i := slices.IndexFunc(g.states, bad)
	return int32(i), i >= 0
}

// evitable finds the first state from which the system may, without any more
// trouble, never get to a state that is good: it stops in one that is not, or
// goes round in circles. No fairness is assumed: any order of moves has to
// lead there.
func (g *graph[S]) evitable(good func(S) bool) (n int32, found bool) {
	lost, open := g.settle(good)
	if open == 0 {
		return 0, false
	}
	return int32(slices.Index(lost, true)), true
}

// settle marks the states from which good states can be evaded, and counts
// them: it takes away those that are good, then again and again those whose
// moves all lead to states that were taken away.
func (g *graph[S]) settle(good func(S) bool) (lost []bool, count int) {
	lost = make([]bool, len(g.states))
	left := make([]int, len(g.states)) // moves to states that are lost so far
	back := make([][]int32, len(g.states))
	var taken []int32
	for i, s := range g.states {
		if good(s) {
			taken = append(taken, int32(i))
			continue
		}
		lost[i] = true
		for _, e := range g.edges[i] {
			if !e.trouble {
				left[i]++
				back[e.to] = append(back[e.to], int32(i))
			}
		}
	}
	count = len(g.states) - len(taken)
	for len(taken) > 0 {
		n := taken[0]
		taken = taken[1:]
		for _, p := range back[n] {
			if left[p]--; left[p] == 0 {
				lost[p] = false
				count--
				taken = append(taken, p)
			}
		}
	}
	return lost, count
}

// trace tells how state n is reached, a line a move.
func (g *graph[S]) trace(n int32) string {
	var way []int32
	for i := n; i != 0; i = g.parent[i] {
		way = append(way, i)
	}
	way = append(way, 0)
	slices.Reverse(way)
	var b strings.Builder
	for step, i := range way {
		fmt.Fprintf(&b, "%3d  %-66s %v\n", step, g.via[i], g.states[i])
	}
	return b.String()
}

// evasion tells how state n is reached, and how the good states are evaded
// from there for ever.
func (g *graph[S]) evasion(n int32, good func(S) bool, moves func(S) []move[S]) string {
	var b strings.Builder
	b.WriteString(g.trace(n))
	b.WriteString("     and without any more trouble:\n")
	lost, _ := g.settle(good)
	step := map[int32]int{}
	for {
		if first, again := step[n]; again {
			fmt.Fprintf(&b, "     which is where move %d began: for ever\n", first)
			return b.String()
		}
		step[n] = len(step) + 1
		next := slices.IndexFunc(g.edges[n], func(e edge) bool { return !e.trouble && lost[e.to] })
		if next < 0 {
			b.WriteString("     nothing happens any more\n")
			return b.String()
		}
		fmt.Fprintf(&b, "%3d. %-66s %v\n", step[n], moves(g.states[n])[next].name, g.states[g.edges[n][next].to])
		n = g.edges[n][next].to
	}
}
