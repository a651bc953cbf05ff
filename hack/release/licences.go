package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
)

// licences puts together the licence files of every module in a program, and the standard library's: what their terms want
// passed on with it.
func licences(info *debug.BuildInfo) ([]byte, error) {
	root, err := goPrints("env", "GOROOT")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := appendLicences(&b, "the Go standard library, "+info.GoVersion, root); err != nil {
		return nil, err
	}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		dir, err := goPrints("list", "-m", "-f", "{{.Dir}}", m.Path)
		if err != nil {
			return nil, err
		}
		if err := appendLicences(&b, m.Path+" "+m.Version, dir); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// appendLicences adds the files in dir that are named as licences are.
func appendLicences(b *bytes.Buffer, what, dir string) error {
	found := false
	for _, pattern := range []string{"LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "PATENTS*"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			fmt.Fprintf(b, "=== %s: %s\n\n%s\n", what, filepath.Base(file), bytes.TrimSpace(text))
			b.WriteString("\n")
			found = true
		}
	}
	if !found {
		// Debian's Go keeps its own elsewhere; a module without one may not be passed on.
		return fmt.Errorf("%s: no licence file in %q", what, dir)
	}
	return nil
}

// goPrints is a line that the go command prints.
func goPrints(args ...string) (string, error) {
	out, err := exec.Command("go", args...).Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
