package labtest

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// event is one line of test2json's output (go doc test2json).
type event struct {
	Action  string
	Test    string
	Output  string
	Elapsed float64 // seconds
}

// result is what became of one test in the lab.
type result struct {
	name    string // the last part of its path
	action  string // pass, fail or skip; empty while it runs
	output  strings.Builder
	elapsed time.Duration
	subs    []*result
}

func (r *result) sub(name string) *result {
	for _, s := range r.subs {
		if s.name == name {
			return s
		}
	}
	s := &result{name: name}
	r.subs = append(r.subs, s)
	return s
}

// collect reads events, shows output as it comes, and reports every finished top-level test as a subtest of t. What
// belongs to no test, such as a panic's traces, is in the returned result's output.
func collect(t *testing.T, events io.Reader) (*result, error) {
	root := &result{}
	for dec := json.NewDecoder(events); ; {
		var e event
		if err := dec.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			return root, fmt.Errorf("reading test2json's output: %w", err)
		}
		r := root
		if e.Test != "" {
			for part := range strings.SplitSeq(e.Test, "/") {
				r = r.sub(part)
			}
		}
		switch e.Action {
		case "output":
			r.output.WriteString(e.Output)
			if testing.Verbose() {
				// Marked, so that the lab's results are not taken for this test's own.
				fmt.Printf("lab| %s\n", strings.TrimRight(e.Output, "\r\n"))
			}
		case "pass", "fail", "skip":
			r.action, r.elapsed = e.Action, time.Duration(e.Elapsed*float64(time.Second))
			if e.Test != "" && !strings.Contains(e.Test, "/") {
				r.report(t)
			}
		}
	}
	for _, r := range root.subs {
		if r.action == "" {
			r.report(t)
		}
	}
	return root, nil
}

// report tells t about r, and about its subtests in theirs.
func (r *result) report(t *testing.T) {
	t.Run(r.name, func(t *testing.T) {
		for _, s := range r.subs {
			s.report(t)
		}
		switch r.action {
		case "pass":
			t.Logf("%v in the lab", r.elapsed)
		case "skip":
			t.Skipf("in the lab: %s", strings.TrimSpace(r.output.String()))
		case "fail":
			t.Errorf("failed in the lab:\n%s", r.output.String())
		case "":
			if len(r.subs) > 0 {
				return // a slash in a subtest's name makes a level that is no test
			}
			t.Errorf("did not end in the lab:\n%s", r.output.String())
		}
	})
}
