//go:build !race

package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// inShell has a shell source its completion script and run more. A microvm is in
// its PATH that has VMs called alpha and beta.
func inShell(t *testing.T, shell string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(shell)
	if err != nil {
		t.Skipf("no %s here; to run this: apt-get install %s", shell, shell)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"microvm":  "#!/bin/sh\n[ \"$*\" = 'ps -q' ] && printf 'alpha\\nbeta\\n'\n",
		"complete": shells[shell](),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir, "PATH="+dir+":"+os.Getenv("PATH"), "TERM=dumb")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", shell, err, out)
	}
	return string(out)
}

// completions are command lines, with what has to be among the ways to go on.
var completions = []struct{ line, want string }{
	{"microvm migr", "migrate-status"},
	{"microvm run --ker", "--kernel"},
	{"microvm migrate --conn", "--connections"},
	{"microvm inspect al", "alpha"},
	{"microvm run -k comp", "complete"}, // a file
	{"microvm help rec", "receive"},
}

func TestCommandLinesAreCompletedInBash(t *testing.T) {
	for _, c := range completions {
		words := strings.Fields(c.line)
		script := `source ./complete; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _microvm; printf '%s\n' "${COMPREPLY[@]}"`
		out := inShell(t, "bash", append([]string{"-c", script, "bash"}, words...)...)
		if !slices.Contains(strings.Fields(out), c.want) {
			t.Errorf("%q: %q, want %s", c.line, out, c.want)
		}
	}
}

func TestCommandLinesAreCompletedInFish(t *testing.T) {
	for _, c := range completions {
		out := inShell(t, "fish", "-c", "source ./complete; complete -C '"+c.line+"'")
		if !slices.Contains(strings.Fields(out), c.want) {
			t.Errorf("%q: %q, want %s", c.line, out, c.want)
		}
	}
}

// zsh completes in its line editor alone: it has a terminal of its own here, in
// which a tab is typed, and the line that comes of it is accepted as a command
// that says what it is.
func TestCommandLinesAreCompletedInZsh(t *testing.T) {
	const script = `
zmodload zsh/zpty
zpty -b editor zsh -f -i
zpty -w editor "PS1=; unsetopt beep; autoload -Uz compinit; compinit -u -D; source ./complete; _fake() { print -r -- \"<\$*>\" }; alias microvm='_fake microvm'; setopt complete_aliases; compdef _microvm microvm; print -r -- rea''dy"
zpty -r editor out '*ready*'
zpty -w -n editor "$1"$'\t\n'
zpty -r editor out '*<microvm*>*'
print -r -- "$out"
zpty -d editor
`
	for _, c := range completions {
		if c.want == "migrate-status" {
			c.line, c.want = "microvm migrate-s", "migrate-status" // the only one
		}
		out := inShell(t, "zsh", "-f", "-c", script, "zsh", c.line)
		line := out[strings.LastIndex(out, "<microvm")+1:]
		if !strings.HasSuffix(strings.TrimSpace(strings.SplitN(line, ">", 2)[0]), c.want) {
			t.Errorf("%q: %q, want %s", c.line, out, c.want)
		}
	}
}

// Each page is one that man shows without a complaint.
func TestManualPages(t *testing.T) {
	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	if status := dispatch(t.Context(), []string{"man", "--dir", dir}, &stdout, &stderr); status != exitDone {
		t.Fatalf("status %d: %s", status, &stderr)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(pages) != len(commands)+1 {
		t.Fatalf("%d pages of %d commands, %v", len(pages), len(commands), err)
	}
	mandoc, err := exec.LookPath("mandoc")
	if err != nil {
		t.Skip("no mandoc here; to run this: apt-get install mandoc")
	}
	if out, err := exec.Command(mandoc, append([]string{"-T", "lint", "-W", "error"}, pages...)...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	out, err := exec.Command(mandoc, "-T", "ascii", filepath.Join(dir, "microvm-run.1")).Output()
	text := string(out)
	for strings.Contains(text, "\b") { // bold, by overstriking
		i := strings.IndexByte(text, '\b')
		text = text[:i-1] + text[i+1:]
	}
	for _, want := range []string{"--kernel", "triple fault", "microvm run --name a --detach && microvm console a"} {
		if err != nil || !strings.Contains(text, want) {
			t.Errorf("%v: microvm-run.1 does not say %q", err, want)
		}
	}
}
