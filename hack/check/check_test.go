package check

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

func TestTheCodeKeepsTheRules(t *testing.T) {
	files, err := load(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	for name, rule := range map[string]func([]file) []string{
		"files are small":              fileSizes,
		"unsafe only in _unsafe files": unsafeFiles,
		"no cgo":                       noCgo,
		"imports point down":           importsPointDown,
		"skips say why":                skipsSayWhy,
		"packages are documented":      packagesDocumented,
		"dependencies are explained": func(files []file) []string {
			return dependenciesExplained(files, read(t, "go.mod"), read(t, "docs/dependencies.md"))
		},
		"messages occur": func(files []file) []string { return messagesOccur(files, read(t, "docs/troubleshooting.md")) },
		"pages are linked": func(files []file) []string {
			return pagesLinked(files, func(name string) string { return read(t, name) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, complaint := range rule(files) {
				t.Error(complaint)
			}
		})
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTheCodeIsFormatted(t *testing.T) {
	files, err := load(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-l", "-s"}
	for _, f := range files {
		if f.syntax != nil {
			args = append(args, f.path)
		}
	}
	if out := tool(t, "gofmt", args...); out != "" {
		t.Errorf("run gofmt -s -w on:\n%s", out)
	}
}

func TestGoVetIsContent(t *testing.T) {
	tool(t, "go", "vet", "-tags", "linuxguest,debian", "./...")
}

func TestStaticcheckIsContent(t *testing.T) {
	tool(t, "go", "tool", "staticcheck", "-tags", "linuxguest,debian", "./...")
}

// tool runs a program at the project's root and returns its standard output.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Errorf("%s %s: %v\n%s%s", name, strings.Join(args[:min(len(args), 4)], " "), err, &stdout, &stderr)
	}
	return stdout.String()
}
