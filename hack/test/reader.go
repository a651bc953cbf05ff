package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is one line of `go test -json` (go doc test2json, go help buildjson).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build-output
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// reader turns the events of one pass into results.
type reader struct {
	pass     string
	all      *summary
	w        io.Writer
	verbose  bool
	failures int

	output map[string]*strings.Builder // by package and test, what it printed; dropped when it has passed
	inner  map[string]bool             // tests that have subtests: they count by those
	builds map[string]string           // by package as built: the compiler's output
}

func newReader(pass string, all *summary, w io.Writer, verbose bool) *reader {
	return &reader{
		pass: pass, all: all, w: w, verbose: verbose,
		output: map[string]*strings.Builder{}, inner: map[string]bool{}, builds: map[string]string{},
	}
}

func (r *reader) read(in io.Reader) error {
	for dec := json.NewDecoder(in); ; {
		var e event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading go test's output: %w", err)
		}
		r.event(e)
	}
}

func key(pkg, test string) string { return pkg + "\x00" + test }

func (r *reader) event(e event) {
	k := key(e.Package, e.Test)
	switch e.Action {
	case "run":
		if slash := strings.LastIndex(e.Test, "/"); slash >= 0 {
			r.inner[key(e.Package, e.Test[:slash])] = true
		}
		r.output[k] = &strings.Builder{}
	case "build-output":
		r.builds[e.ImportPath] += e.Output
	case "output":
		if r.verbose {
			fmt.Fprint(r.w, e.Output)
		}
		if r.output[k] == nil {
			r.output[k] = &strings.Builder{}
		}
		r.output[k].WriteString(e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e)
		} else {
			r.endTest(e)
		}
		delete(r.output, k)
	}
}

func (r *reader) endTest(e event) {
	k := key(e.Package, e.Test)
	name := r.name(e.Package, e.Test)
	text := ""
	if r.output[k] != nil {
		text = r.output[k].String()
	}
	inner := r.inner[k]
	if !strings.Contains(e.Test, "/") {
		r.all.took = append(r.all.took, took{name, e.Elapsed})
	}
	switch e.Action {
	case "pass":
		if !inner {
			r.all.ran++
			r.all.passed++
		}
	case "skip":
		if !inner {
			r.all.ran++
			r.all.skipped = append(r.all.skipped, skipped{name, remedy(text)})
		}
	case "fail":
		if !r.verbose {
			fmt.Fprint(r.w, text)
		}
		// A test fails with its subtests; it counts itself only if it failed without them.
		if !r.anyFailed(name + "/") {
			r.fail(name)
		}
	}
}

func (r *reader) fail(name string) {
	r.failures++
	r.all.ran++
	r.all.failed = append(r.all.failed, name)
}

// endPackage reports a package that failed outside of its tests: it did not build, panicked, or ran out of time.
func (r *reader) endPackage(e event) {
	short := strings.TrimPrefix(e.Package, "microvm/")
	if e.Action != "fail" {
		if e.Action == "pass" {
			fmt.Fprintf(r.w, "ok   %-8s %-28s %7.1f s\n", r.pass, short, e.Elapsed)
		}
		return
	}
	fmt.Fprintf(r.w, "FAIL %-8s %-28s %7.1f s\n", r.pass, short, e.Elapsed)
	if e.FailedBuild != "" {
		r.failures++
		r.all.broken = append(r.all.broken, r.name(e.Package, "")+": does not build")
		fmt.Fprint(r.w, r.builds[e.FailedBuild])
		return
	}
	if !r.unfinished(e.Package) && !r.anyFailed(r.name(e.Package, "")+".") {
		r.failures++
		r.all.broken = append(r.all.broken, r.name(e.Package, "")+": failed outside of its tests")
		if out := r.output[key(e.Package, "")]; out != nil && !r.verbose {
			fmt.Fprint(r.w, out.String())
		}
	}
}

// unfinished counts the package's tests that began and never ended as failed, and says whether there were any.
func (r *reader) unfinished(pkg string) bool {
	found := false
	for k, out := range r.output {
		test, ours := strings.CutPrefix(k, key(pkg, ""))
		if !ours || test == "" {
			continue
		}
		found = true
		r.fail(r.name(pkg, test) + " (did not end)")
		if !r.verbose {
			fmt.Fprint(r.w, out.String())
		}
		delete(r.output, k)
	}
	return found
}

func (r *reader) anyFailed(prefix string) bool {
	return slices.ContainsFunc(r.all.failed, func(name string) bool { return strings.HasPrefix(name, prefix) })
}

// finish counts tests of packages whose end never came, because go test was cut short.
func (r *reader) finish() {
	packages := map[string]bool{}
	for k := range r.output {
		pkg, test, _ := strings.Cut(k, "\x00")
		packages[pkg] = packages[pkg] || test != ""
	}
	for pkg, open := range packages {
		if open {
			r.unfinished(pkg)
		}
	}
}

func (r *reader) name(pkg, test string) string {
	name := r.pass + ": " + strings.TrimPrefix(pkg, "microvm/")
	if test != "" {
		name += "." + test
	}
	return name
}
