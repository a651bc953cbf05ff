package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

func TestTheListNamesWhatIsInTheProgram(t *testing.T) {
	info := &debug.BuildInfo{
		GoVersion: "go1.26.0",
		Main:      debug.Module{Path: "microvm", Version: "v1.2.3"},
		Deps: []*debug.Module{
			{Path: "a.org/x", Version: "v0.1.0", Sum: "h1:aaaa="},
			{Path: "b.org/y_z", Version: "v1.0.0", Replace: &debug.Module{Path: "c.org/y_z", Version: "v1.0.1", Sum: "h1:cccc="}},
		},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abcdef"}, {Key: "vcs.time", Value: "2026-11-21T10:00:00Z"}},
	}
	s := newSBOM(info)
	var names []string
	ids := map[string]bool{documentID: true}
	for _, p := range s.Packages {
		names = append(names, p.Name+" "+p.Version+" "+p.Source)
		if ids[p.ID] || notInID.MatchString(p.ID) {
			t.Errorf("%q is no identifier, or one of two", p.ID)
		}
		ids[p.ID] = true
	}
	want := []string{"microvm v1.2.3 commit abcdef", "std 1.26.0 ", "a.org/x v0.1.0 go.sum h1:aaaa=", "c.org/y_z v1.0.1 go.sum h1:cccc="}
	if !slices.Equal(names, want) {
		t.Errorf("packages %q, want %q", names, want)
	}
	for _, r := range s.Relationships {
		if !ids[r.From] || !ids[r.To] {
			t.Errorf("%+v is about something that is not in the list", r)
		}
	}
	if len(s.Relationships) != 1+3 || s.Creation.Created != "2026-11-21T10:00:00Z" || !strings.HasSuffix(s.Namespace, "microvm-v1.2.3-abcdef") {
		t.Errorf("%+v", s)
	}
	once, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := json.Marshal(newSBOM(info)); err != nil || string(again) != string(once) {
		t.Errorf("twice, it differs: %v", err)
	}
}

// Those of every module that is linked into the program, whatever its authors call the file.
func TestLicencesOfEveryModuleArePassedOn(t *testing.T) {
	linked, err := goPrints("list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{end}}{{end}}", "microvm/cmd/microvm")
	if err != nil {
		t.Fatal(err)
	}
	info := &debug.BuildInfo{GoVersion: "go1.26.0"}
	want := []string{"=== the Go standard library, go1.26.0: LICENSE", "Redistribution and use"}
	for _, line := range slices.Compact(strings.Split(linked, "\n")) {
		path, version, _ := strings.Cut(line, " ")
		info.Deps = append(info.Deps, &debug.Module{Path: path, Version: version})
		want = append(want, "=== "+line+": ")
	}
	text, err := licences(info)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range want {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not there", want)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "licence.go"), []byte("package p"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := appendLicences(new(bytes.Buffer), "a module", dir); err == nil {
		t.Error("a module without a licence is passed on")
	}
}
