package labtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Tag is the build tag of tests that boot Linux guests.
const Tag = "linuxguest"

// Package is a package with tests that boot Linux guests.
type Package struct {
	Path  string   // import path
	Dir   string   // its folder
	Tests []string // the tests in its tagged files, by name
}

// listed is the part of `go list -json` that Discover reads.
type listed struct {
	ImportPath   string
	Dir          string
	TestGoFiles  []string
	XTestGoFiles []string
}

// Discover returns the packages that match the patterns and have test files which only Tag brings in.
func Discover(patterns ...string) ([]Package, error) {
	with, err := list(append([]string{"-tags", Tag}, patterns...))
	if err != nil {
		return nil, err
	}
	without, err := list(patterns)
	if err != nil {
		return nil, err
	}
	ordinary := map[string]bool{}
	for _, p := range without {
		for _, f := range p.testFiles() {
			ordinary[f] = true
		}
	}
	var found []Package
	for _, p := range with {
		var tests []string
		for _, f := range p.testFiles() {
			if ordinary[f] {
				continue
			}
			names, err := testsIn(f)
			if err != nil {
				return nil, err
			}
			tests = append(tests, names...)
		}
		if len(tests) > 0 {
			found = append(found, Package{Path: p.ImportPath, Dir: p.Dir, Tests: tests})
		}
	}
	return found, nil
}

func (p listed) testFiles() []string {
	var paths []string
	for _, f := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
		paths = append(paths, filepath.Join(p.Dir, f))
	}
	return paths
}

func list(args []string) ([]listed, error) {
	var complaint bytes.Buffer
	cmd := exec.Command("go", append([]string{"list", "-e", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles"}, args...)...)
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w\n%s", strings.Join(args, " "), err, &complaint)
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		all = append(all, p)
	}
}

// testsIn returns the names of the test functions in a file.
func testsIn(path string) ([]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") && f.Name.Name != "TestMain" {
			names = append(names, f.Name.Name)
		}
	}
	return names, nil
}
