package main

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// summary is what became of all tests. A test with subtests counts by those.
type summary struct {
	ran, passed int
	failed      []string
	skipped     []skipped
	broken      []string // what failed without being a test: a package that does not build, a deadline
	took        []took   // whole tests, with their subtests
}

// took is how long a test did, in seconds.
type took struct {
	name    string
	seconds float64
}

// slowest is how many of the tests that took longest are named.
const slowest = 12

type skipped struct{ name, remedy string }

func (s *summary) good() bool { return len(s.failed) == 0 && len(s.broken) == 0 && s.ran > 0 }

func (s *summary) print(w io.Writer) {
	slices.SortFunc(s.took, func(a, b took) int { return cmp.Compare(b.seconds, a.seconds) })
	for _, t := range s.took[:min(slowest, len(s.took))] {
		fmt.Fprintf(w, "%7.1f s %s\n", t.seconds, t.name)
	}
	fmt.Fprintln(w)
	for _, b := range s.broken {
		fmt.Fprintf(w, "BROKEN  %s\n", b)
	}
	for _, f := range s.failed {
		fmt.Fprintf(w, "FAILED  %s\n", f)
	}
	for _, k := range s.skipped {
		fmt.Fprintf(w, "SKIPPED %s\n        %s\n", k.name, k.remedy)
	}
	verdict := "all good"
	if !s.good() {
		verdict = "NOT GOOD"
	}
	fmt.Fprintf(w, "%d ran, %d passed, %d skipped, %d failed: %s\n",
		s.ran, s.passed, len(s.skipped), len(s.failed)+len(s.broken), verdict)
}

// noise is what the testing package writes around a test's own messages.
var noise = regexp.MustCompile(`^\s*(=== |--- )`)

// place is the file and line that precede a message.
var place = regexp.MustCompile(`^\s*\S+\.go:\d+: `)

// remedy takes the message out of a skipped test's output.
func remedy(output string) string {
	var lines []string
	for line := range strings.Lines(output) {
		if !noise.MatchString(line) {
			lines = append(lines, strings.TrimSpace(place.ReplaceAllString(line, "")))
		}
	}
	if len(lines) == 0 {
		return "(no message)"
	}
	return strings.Join(lines, " ")
}
