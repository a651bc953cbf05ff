package main

import (
	"bytes"
	"encoding/json"
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

func TestLicencesOfEveryModuleArePassedOn(t *testing.T) {
	text, err := licences(&debug.BuildInfo{GoVersion: "go1.26.0", Deps: []*debug.Module{{Path: "golang.org/x/sys", Version: "v0.49.0"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"=== the Go standard library, go1.26.0: LICENSE", "=== golang.org/x/sys v0.49.0: LICENSE", "Redistribution and use"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not there", want)
		}
	}
	if err := appendLicences(new(bytes.Buffer), "a module", t.TempDir()); err == nil {
		t.Error("a module without a licence is passed on")
	}
}
