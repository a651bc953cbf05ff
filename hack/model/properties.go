package model

// A property is what has to hold, whatever happens.
type property struct {
	name string
	// never is a state that must not be reachable, or
	never func(state) bool
	// surely is one that has to be reached from everywhere, in any order of
	// events, once there is no more trouble.
	surely func(state) bool
}

var (
	neverTwo = property{
		name:  "never two owners",
		never: func(s state) bool { return s.srcRuns() && s.dst.runs },
	}
	neverNone = property{
		name:   "somebody runs the guest, or will as soon as trouble ends",
		surely: func(s state) bool { return s.srcRuns() != s.dst.runs || s.dst.ended || s.excused() },
	}
	pagesKept = property{
		name:  "the source keeps every page until the destination needs none",
		never: func(s state) bool { return !s.src.pages && s.src.at != srcDead && !s.dst.whole && !s.dst.ended },
	}
	goneIsGone = property{
		name: "after SHUT 0 the source never runs the guest",
		never: func(s state) bool {
			return s.srcRuns() && (s.src.at == srcHeardShut || s.src.at == srcCompleted)
		},
	}
	cancelHolds = property{
		name:  "where Cancel was accepted, the destination never runs the guest",
		never: func(s state) bool { return s.src.committed == cancelled && s.dst.fate == fateRan },
	}
	sourceLearns = property{
		name: "the source learns how it ended, and rightly",
		never: func(s state) bool {
			return s.src.at == srcStays && (s.dst.fate == fateRan || !s.srcRuns()) ||
				s.src.at == srcCompleted && s.dst.fate != fateRan
		},
		surely: func(s state) bool { return s.src.at == srcStays || s.src.at == srcCompleted || s.excused() },
	}
	properties = []property{neverTwo, neverNone, pagesKept, goneIsGone, cancelHolds, sourceLearns}
)

// excused tells whether somebody put an end to it: the source was killed, or
// the destination after it has run the guest; that does not need the source any
// more and has not waited for it to hear so; or it cannot go on, or was
// abandoned, after it has run the guest. Everything else is no excuse, since a
// person may resume, or take the guest back.
func (s state) excused() bool {
	switch s.dst.at {
	case dstUnheard, dstLost:
		return true
	case dstDead:
		return s.dst.fate == fateRan || s.src.at == srcDead
	}
	return s.src.at == srcDead
}

// violation returns how p is violated in g; "" if it is not.
func (p property) violation(g *graph[state], moves func(state) []move[state]) string {
	if p.never != nil {
		if n, found := g.never(p.never); found {
			return g.trace(n)
		}
	}
	if p.surely != nil {
		if n, found := g.evitable(p.surely); found {
			return g.evasion(n, p.surely, moves)
		}
	}
	return ""
}
