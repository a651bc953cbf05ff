package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
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

// licenceNames are how a file with terms begins, in either case: libcap's is License.
var licenceNames = []string{"LICENSE", "LICENCE", "COPYING", "NOTICE", "PATENTS"}

// appendLicences adds the files in dir that are named as licences are.
func appendLicences(b *bytes.Buffer, what, dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	found := false
	for _, file := range files {
		named := slices.ContainsFunc(licenceNames, func(name string) bool { return strings.HasPrefix(strings.ToUpper(file.Name()), name) })
		if !named || file.IsDir() || filepath.Ext(file.Name()) == ".go" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, file.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "=== %s: %s\n\n%s\n", what, file.Name(), bytes.TrimSpace(text))
		b.WriteString("\n")
		found = true
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
