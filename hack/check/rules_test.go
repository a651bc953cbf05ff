package check

import (
	"strings"
	"testing"
	"testing/fstest"
)

func project(t *testing.T, sources map[string]string) []file {
	t.Helper()
	tree := fstest.MapFS{}
	for path, source := range sources {
		tree[path] = &fstest.MapFile{Data: []byte(source)}
	}
	files, err := load(tree)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Each rule is shown one file that keeps it and one that breaks it.
func TestRulesSeeWhatBreaksThem(t *testing.T) {
	for _, c := range []struct {
		name      string
		rule      func([]file) []string
		good, bad map[string]string
		want      []string // words in the one complaint
	}{{
		name: "size", rule: fileSizes,
		good: map[string]string{"a.txt": strings.Repeat("x", maxFileSize)},
		bad:  map[string]string{"a.txt": strings.Repeat("x", maxFileSize+1)},
		want: []string{"a.txt", "24577"},
	}, {
		name: "unsafe", rule: unsafeFiles,
		good: map[string]string{"kvm/a_unsafe.go": `package kvm; import _ "unsafe"`},
		bad:  map[string]string{"kvm/a.go": `package kvm; import _ "unsafe"`},
		want: []string{"kvm/a.go"},
	}, {
		name: "unsafe in name only", rule: unsafeFiles,
		good: map[string]string{"kvm/a_unsafe_test.go": `package kvm; import _ "unsafe"`},
		bad:  map[string]string{"kvm/a_unsafe.go": `package kvm`},
		want: []string{"kvm/a_unsafe.go"},
	}, {
		name: "cgo", rule: noCgo,
		good: map[string]string{"kvm/a.go": `package kvm`},
		bad:  map[string]string{"kvm/a.go": `package kvm; import "C"`},
		want: []string{"kvm/a.go"},
	}, {
		name: "import up", rule: importsPointDown,
		good: map[string]string{"vmm/a.go": `package vmm; import _ "microvm/migration/uffd"`},
		bad:  map[string]string{"memslot/a.go": `package memslot; import _ "microvm/migration/uffd"`},
		want: []string{"memslot/a.go", "migration stands above memslot"},
	}, {
		name: "import across", rule: importsPointDown,
		good: map[string]string{"devices/net/a.go": `package net; import _ "microvm/memslot"`},
		bad:  map[string]string{"devices/net/a.go": `package net; import _ "microvm/guest"`},
		want: []string{"kept apart"},
	}, {
		name: "migration knows no device", rule: importsPointDown,
		good: map[string]string{"migration/a_test.go": `package migration_test; import _ "microvm/guest/tiny"`},
		bad:  map[string]string{"migration/a.go": `package migration; import _ "microvm/devices"`},
		want: []string{"kept apart"},
	}, {
		name: "unknown folder", rule: importsPointDown,
		good: map[string]string{"cmd/microvm/a.go": `package main; import _ "microvm/vmm"`},
		bad:  map[string]string{"cmd/microvm/a.go": `package main; import _ "microvm/util"`},
		want: []string{"util is not in the list"},
	}, {
		name: "skip", rule: skipsSayWhy,
		good: map[string]string{"a_test.go": `package a; func f(t T) { t.Skip("install it") }`},
		bad:  map[string]string{"a_test.go": `package a; func f(t T) { t.SkipNow() }`},
		want: []string{"a_test.go:1", "SkipNow"},
	}, {
		name: "package comment", rule: packagesDocumented,
		good: map[string]string{"kvm/doc.go": "// Package kvm is.\npackage kvm", "kvm/a.go": "package kvm"},
		bad:  map[string]string{"kvm/a.go": "package kvm"},
		want: []string{"kvm", "no package comment"},
	}} {
		t.Run(c.name, func(t *testing.T) {
			if complaints := c.rule(project(t, c.good)); len(complaints) > 0 {
				t.Errorf("complains of what keeps the rule: %q", complaints)
			}
			complaints := c.rule(project(t, c.bad))
			if len(complaints) != 1 {
				t.Fatalf("%d complaints, want 1: %q", len(complaints), complaints)
			}
			for _, word := range c.want {
				if !strings.Contains(complaints[0], word) {
					t.Errorf("%q does not say %q", complaints[0], word)
				}
			}
		})
	}
}

func TestUnexplainedAndGoneDependenciesAreSeen(t *testing.T) {
	const mod = "module microvm\n\nrequire (\n\ta.org/x v1.0.0\n\ta.org/x/deep v1.0.0\n\tc.org/tool v0.1.0 // indirect\n)\n\ntool c.org/tool/cmd/t\n"
	files := project(t, map[string]string{"kvm/a.go": `package kvm; import (_ "a.org/x/deep/er"; _ "os")`})
	got := dependenciesExplained(files, mod, "- `b.org/y`: MIT, for nothing\n- `c.org/tool`: MIT, checks\n")
	if len(got) != 2 || !strings.Contains(got[0], "b.org/y is not in go.mod") || !strings.Contains(got[1], "no line on a.org/x/deep,") {
		t.Errorf("complaints: %q", got)
	}
}

func TestCachesAndBuildsAreNotOfTheProject(t *testing.T) {
	files := project(t, map[string]string{
		".ci/run": "", ".cache/lab/big": "", "bin/microvm": "", "dist/x": "", "kvm/doc.go": "package kvm",
	})
	if len(files) != 2 || files[0].path != ".ci/run" || files[1].path != "kvm/doc.go" {
		t.Errorf("files: %v", files)
	}
}

func TestMessagesThatNobodyPrintsAreSeen(t *testing.T) {
	files := project(t, map[string]string{
		"vmm/a.go":      "package vmm; var _ = f(\"disk %s: \"+why+\" in %d parts\", `run `, \"x is `y` here\")",
		"vmm/a_test.go": `package vmm; var _ = "only a test says so"`,
	})
	const document = "> `disk …: … in … parts`\n> `x is `y` here`\n> `parts in`\n> `only a test says so`\n> a plain quotation\n"
	got := messagesOccur(files, document)
	if len(got) != 2 || !strings.Contains(got[0], `"parts in"`) || !strings.Contains(got[1], "only a test") {
		t.Errorf("complaints: %q", got)
	}
}

func TestPagesThatNobodyFindsAreSeen(t *testing.T) {
	texts := map[string]string{
		"docs/README.md": "[a](a.md), [gone](gone.md)",
		"docs/a.md":      "[up](../README.md#how), [out](https://a.org/x.md)",
		"docs/b.md":      "",
		"README.md":      "[docs](docs)",
	}
	got := pagesLinked(project(t, texts), func(name string) string { return texts[name] })
	if len(got) != 2 || !strings.Contains(got[0], "gone.md") || !strings.Contains(got[1], "docs/b.md: not in the index") {
		t.Errorf("complaints: %q", got)
	}
}
