//go:build !race

package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// What the docs and the help say to type works: each command line is run, in the order of its page, or there is a
// reason why not (docs_table_test.go).
func TestEveryCommandLineInTheDocs(t *testing.T) {
	needKVM(t)
	for page, lines := range docPages(t) {
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			r := newRehearsal(t)
			for _, line := range lines {
				r.try(line)
			}
		})
	}
}

// Commands and flags that are named in the text of a page are there.
func TestCommandsInTheProseOfTheDocs(t *testing.T) {
	for page := range docPages(t) {
		if strings.HasPrefix(page, "help ") {
			continue
		}
		text, err := os.ReadFile("../../" + page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range inProse.FindAllStringSubmatch(string(text), -1) {
			if err := known(m[1]); err != nil {
				t.Errorf("%s: `%s`: %v", page, m[1], err)
			}
		}
	}
}

// try runs a line, or looks at it.
func (r *rehearsal) try(line docLine) {
	r.t.Helper()
	r.line = line
	for _, n := range notRun {
		if regexp.MustCompile(n.line).MatchString(line.text) {
			if n.check == nil {
				return
			}
			if err := n.check(line.text); err != nil {
				r.fatalf("%v (it is not run: %s)", err, n.why)
			}
			return
		}
	}
	if !strings.Contains(line.text, "microvm") {
		r.fatalf("nobody knows how to run this: say it in docs_table_test.go")
	}
	if synopsis.MatchString(line.text) {
		if err := known(line.text); err != nil {
			r.fatalf("%v", err)
		}
		return
	}
	r.run()
}

// A call is one microvm in a command line.
type call struct {
	*command
	args  []string // that are no flags
	given map[string]string
}

// said tells whether the call has the flag.
func (c call) said(flag string) bool { return c.given[flag] != "" && c.given[flag] != "false" }

// vm is the VM that the call is about, or makes; "" if it does not say.
func (c call) vm() string {
	if c.takesVM() && len(c.args) > 0 {
		return c.args[0]
	}
	return c.given["name"]
}

var (
	separator = regexp.MustCompile(`&&|\|\||[;|]|<\(|\)`)
	word      = regexp.MustCompile(`'[^']*'|"[^"]*"|[^\s'"]+`)
	redirect  = regexp.MustCompile(`^\d*[<>]`)
)

// calls takes a line apart.
func (r *rehearsal) calls(text string) (all []call) {
	r.t.Helper()
	for _, part := range separator.Split(text, -1) {
		words := word.FindAllString(part, -1)
		for len(words) > 0 && strings.Contains(words[0], "=") {
			words = words[1:]
		}
		if len(words) < 2 || words[0] != "microvm" {
			continue
		}
		c := call{command: find(words[1]), given: map[string]string{}}
		if c.command == nil {
			if words[1] != "help" {
				r.fatalf("there is no microvm %s", words[1])
			}
			continue
		}
		var args []string
		for _, w := range words[2:] {
			if redirect.MatchString(w) {
				break
			}
			args = append(args, strings.Trim(w, `'"`))
		}
		flags, _ := c.flagSet()
		if err := flags.Parse(args); err != nil {
			r.fatalf("microvm %s: %v", words[1], err)
		}
		for _, f := range c.flagInfos() {
			if flags.Changed(f.Name) {
				c.given[f.Name] = flags.Lookup(f.Name).Value.String()
			}
		}
		c.args = flags.Args()
		all = append(all, c)
	}
	return all
}
