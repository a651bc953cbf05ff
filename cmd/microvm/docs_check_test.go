//go:build !race

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// What can be said of a command line without running it.

// makeTarget: make has such targets. It prints what it would do.
func makeTarget(line string) error {
	for command := range strings.SplitSeq(line, ";") {
		words, ok := strings.CutPrefix(strings.TrimPrefix(strings.TrimSpace(command), "sudo "), "make ")
		if !ok {
			continue
		}
		cmd := exec.Command("make", append([]string{"-n"}, strings.Fields(words)...)...)
		cmd.Dir = "../.."
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	return nil
}

var (
	flagWord   = regexp.MustCompile(`(?:^|[\s\[])(--?[a-z][a-z-]*)`)
	testName   = regexp.MustCompile(`-run (\w+)`)
	folderWord = regexp.MustCompile(`(?:^|\s)(\./\S+)`)
)

// goProgram: there is such a program in this module, and its source knows the flags up to "--".
func goProgram(line string) error {
	line = strings.TrimPrefix(line, "go run ")
	folder, rest, _ := strings.Cut(line, " ")
	source, err := goSource(folder)
	if err != nil {
		return err
	}
	rest, _, _ = strings.Cut(" "+rest, " -- ")
	for _, m := range flagWord.FindAllStringSubmatch(rest, -1) {
		if name := strings.TrimLeft(m[1], "-"); !strings.Contains(source, fmt.Sprintf("%q", name)) {
			return fmt.Errorf("%s does not know %s", folder, m[1])
		}
	}
	return nil
}

// goPackages: there are such packages, and such tests in them.
func goPackages(line string) error {
	for _, folder := range folderWord.FindAllStringSubmatch(line, -1) {
		if folder[1] == "./..." {
			continue
		}
		source, err := goSource(folder[1])
		if err != nil {
			return err
		}
		for _, m := range testName.FindAllStringSubmatch(line, -1) {
			if !strings.Contains(source, "func "+m[1]) {
				return fmt.Errorf("%s has no test that begins with %s", folder[1], m[1])
			}
		}
	}
	return nil
}

// goSource is all Go files of a folder of this module in one.
func goSource(folder string) (string, error) {
	files, err := filepath.Glob(filepath.Join("../..", folder, "*.go"))
	if err != nil || len(files) == 0 {
		return "", errors.Join(err, fmt.Errorf("%s: no Go files there", folder))
	}
	var b strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		b.Write(text)
	}
	return b.String(), nil
}

// hasTest: this package has the test that the reason names.
func hasTest(name string) check {
	return func(string) error {
		source, err := goSource("./cmd/microvm")
		if err == nil && !strings.Contains(source, "func "+name+"(") {
			err = fmt.Errorf("there is no %s any more", name)
		}
		return err
	}
}

// known: the commands and flags of a form are there.
func known(line string) error {
	for i, part := range strings.Split(line, "microvm ") {
		name, rest, _ := strings.Cut(part, " ")
		if i == 0 || name == "help" || strings.Contains(name, "|") {
			continue
		}
		name = strings.TrimRight(name, ";,.:")
		c := find(name)
		if c == nil {
			if name == strings.ToUpper(name) {
				continue // COMMAND
			}
			return fmt.Errorf("there is no microvm %s", name)
		}
		flags, _ := c.flagSet()
		for _, m := range flagWord.FindAllStringSubmatch(" "+rest, -1) {
			long, ok := strings.CutPrefix(m[1], "--")
			if ok && flags.Lookup(long) == nil || !ok && len(m[1]) == 2 && flags.ShorthandLookup(m[1][1:]) == nil {
				return fmt.Errorf("microvm %s has no %s", name, m[1])
			}
		}
	}
	return nil
}
