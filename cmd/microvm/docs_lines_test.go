//go:build !race

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A docLine is a command line that a document shows.
type docLine struct {
	page   string
	number int // of the line in the page
	text   string
}

// docPages gives the command lines of each page: README.md, docs, and the examples of microvm help.
func docPages(t *testing.T) map[string][]docLine {
	t.Helper()
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(docs) == 0 {
		t.Fatalf("no docs: %v", err)
	}
	pages := make(map[string][]docLine)
	for _, path := range append(docs, "../../README.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		page := strings.TrimPrefix(path, "../../")
		for _, b := range blocks(string(text)) {
			lines, known := b.commands(page)
			if !known {
				t.Errorf("%s:%d: nobody knows what this is: %q\nIf it is a command, add the program to programs, and say in docs_table_test.go how it is run or why it is not; "+
					"if it is a picture, line it up with two blanks or lines somewhere", page, b.number, b.lines[0])
			}
			pages[page] = append(pages[page], lines...)
		}
	}
	for _, c := range commands {
		for _, e := range c.examples {
			pages["help "+c.name] = append(pages["help "+c.name], docLine{"help " + c.name, 0, e})
		}
	}
	return pages
}

// programs are what a command line of the docs may begin with, after settings of the environment.
var programs = regexp.MustCompile(`^(?:[A-Z_]+=\S+ )*(?:(?:bin/)?microvm|make|go|git|openssl|mkdir|cp|printf|sudo|apt-get|apt|dpkg|systemctl|journalctl|curl|ip|modprobe|usermod|for|truncate|cat|echo) `)

// A block is what a page shows as it is: indented by four blanks, or fenced.
type block struct {
	number int // of its first line
	lines  []string
}

func blocks(text string) (all []block) {
	var b block
	end := func() {
		if len(b.lines) > 0 {
			all = append(all, b)
		}
		b = block{}
	}
	fenced, last := false, ""
	for i, line := range strings.Split(text, "\n") {
		inside, indented := strings.CutPrefix(line, "    ")
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			end()
			fenced = !fenced
		case fenced, indented && (len(b.lines) > 0 || strings.TrimSpace(last) == ""):
			if !fenced {
				line = inside
			}
			if len(b.lines) == 0 {
				b.number = i + 1
			}
			b.lines = append(b.lines, line)
		default:
			end()
		}
		last = line
	}
	end()
	return all
}

// columns are what stands apart in a line by two blanks or more.
var columns = regexp.MustCompile(`\s{2,}`)

// picture is what a block has that is no list of commands.
var picture = regexp.MustCompile(`\S\s{2,}\S|^\s{2,}|[─│▶]| \| .* \| |^[{\[<]|^[a-z]+: `) // the last is a log's

// commands are the command lines of a block. One that has lines beginning with "$ " shows output in the others; else
// each line is a command, and what stands apart by two blanks is said of it. known: it is commands, or a picture.
func (b block) commands(page string) (lines []docLine, known bool) {
	prompt := strings.HasPrefix(b.lines[0], "$ ")
	if !prompt && !programs.MatchString(b.lines[0]+" ") {
		for _, line := range b.lines {
			if picture.MatchString(line) {
				return nil, true
			}
		}
		return nil, false
	}
	for i := 0; i < len(b.lines); i++ {
		number, text := b.number+i, b.lines[i]
		for strings.HasSuffix(text, "\\") && i+1 < len(b.lines) {
			i++
			text = strings.TrimSuffix(text, "\\") + strings.TrimSpace(b.lines[i])
		}
		if prompt {
			if command, ok := strings.CutPrefix(text, "$ "); ok {
				lines = append(lines, docLine{page, number, command})
			}
			continue
		}
		text, _, _ = strings.Cut(text, "  #")
		first, _, _ := strings.Cut(text, " ")
		for j, column := range columns.Split(text, -1) {
			if j == 0 && column != "" || strings.HasPrefix(column, first+" ") {
				lines = append(lines, docLine{page, number, column})
			}
		}
	}
	return lines, true
}

// inProse are the microvm command lines within a page's text.
var inProse = regexp.MustCompile("`(?:bin/)?(microvm [^`]+)`")

func TestBlocksOfTheDocsAreTold(t *testing.T) {
	text := "text\n\n    make a      says what\n    go run ./x \\\n        --flag\n\n    $ microvm ps\n    NAME\n\n    a ── b\n\n    frobnicate --all\n\n- item\n    continued\n"
	var got []string
	unknown := 0
	for _, b := range blocks(text) {
		lines, known := b.commands("page")
		for _, l := range lines {
			got = append(got, l.text)
		}
		if !known {
			unknown++
		}
	}
	if want := "make a|go run ./x --flag|microvm ps"; strings.Join(got, "|") != want || unknown != 1 {
		t.Errorf("%q, and %d unknown; want %s, and frobnicate", got, unknown, want)
	}
}
