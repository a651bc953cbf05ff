package model

import (
	"strings"
	"testing"
)

// TestEveryReachableStateHasOneOwner checks every property in every state that
// can be reached.
func TestEveryReachableStateHasOneOwner(t *testing.T) {
	moves := system(sound)
	g := explore(beginning(), moves)
	t.Logf("%d states, %d transitions", len(g.states), g.moves)
	for _, p := range properties {
		if trace := p.violation(g, moves); trace != "" {
			t.Errorf("violated: %s\n%s", p.name, trace)
		}
	}
}

// TestTheModelGoesEverywhere keeps the properties from holding because
// something never happens.
func TestTheModelGoesEverywhere(t *testing.T) {
	var src [len(srcNames)]bool
	var dst [len(dstNames)]bool
	var said [len(messageNames)]bool
	var completed, cancelledInTime, takenBack, byHand, superseded bool
	for _, s := range explore(beginning(), system(sound)).states {
		src[s.src.at], dst[s.dst.at] = true, true
		for _, c := range s.conns {
			for i := range c.forward {
				said[c.forward[i]], said[c.back[i]] = true, true
			}
		}
		completed = completed || s.src.at == srcCompleted && s.dst.at == dstCompleted && s.dst.runs
		cancelledInTime = cancelledInTime || s.src.at == srcStays && s.src.committed == cancelled && s.dst.at == dstFailed
		takenBack = takenBack || s.src.at == srcStays && s.src.detached && s.dst.at == dstFailed
		byHand = byHand || s.src.at == srcStays && s.src.committed == runWritten && s.dst.at == dstLate
		superseded = superseded || s.dst.serving != noConn && s.dst.pending != noConn && s.session().dstClosed && s.session().forward.head() == run
	}
	for i, reached := range src {
		if !reached {
			t.Errorf("the source is never at %q", srcAt(i))
		}
	}
	for i, reached := range dst {
		if !reached && dstAt(i) != dstStopped { // that is what stopsAtDeadline leads to
			t.Errorf("the destination is never at %q", dstAt(i))
		}
	}
	for i, reached := range said {
		if !reached {
			t.Errorf("nobody ever says %q", message(i))
		}
	}
	if !completed || !cancelledInTime || !takenBack || !byHand || !superseded {
		t.Errorf("completed %v; cancelled and both ended %v; taken back after RUN and both ended %v, by hand %v; RUN still read from a connection that has a successor %v",
			completed, cancelledInTime, takenBack, byHand, superseded)
	}
}

// TestEveryRuleIsNeeded breaks one rule after the other. The checker has to
// find what that leads to, and to tell how.
func TestEveryRuleIsNeeded(t *testing.T) {
	for _, c := range []struct {
		broken mutation
		leads  property // violated
		by     string   // in the trace
	}{
		{takeBackAfterCut, neverTwo, "source: broken, taken for never run"},
		{takeBackAtDeadline, neverTwo, "source: reconnect: deadline"},
		{writtenIsNot, neverTwo, "POSTCOPY_RUN and an error"},
		{partIsWritten, neverNone, "nothing happens any more"},
		{cancelAfterRun, neverTwo, "source: Cancel"},
		{cancelAfterRun, cancelHolds, "source: Cancel"},
		{runAlthoughCancelled, cancelHolds, "source: Cancel"},
		{failedIsBroken, neverNone, "for ever"},
		{eofIsSuccess, pagesKept, "source: end of file"},
		{takesBackUnsure, neverTwo, "source: TakeBack, by a person"},
		{resumeAfterShut, goneIsGone, "source: the user resumes"},
		{givesUpSilently, neverNone, "FAILED unsaid"},
		{failedThenLeaves, neverNone, "destination: sayFailed, leaves"},
		{runAfterFailed, neverTwo, "destination: run, after FAILED"},
		{startFailsSilently, neverNone, "machine.Run fails"},
		{ackLies, sourceLearns, "for ever"},
		{eofIsHeard, sourceLearns, "destination: end of file"},
		{endedThenLeaves, sourceLearns, "the guest ends"},
		{stopsAtDeadline, neverNone, "deadline, the guest is stopped"},
	} {
		t.Run(string(c.broken)+"/"+c.leads.name, func(t *testing.T) {
			moves := system(c.broken)
			g := explore(beginning(), moves)
			trace := c.leads.violation(g, moves)
			if trace == "" {
				t.Fatalf("in %d states nothing violates: %s", len(g.states), c.leads.name)
			}
			if !strings.Contains(trace, c.by) {
				t.Errorf("%q is not in the trace of how it violates: %s\n%s", c.by, c.leads.name, trace)
			}
			t.Logf("violated: %s\n%s", c.leads.name, trace)
		})
	}
}
