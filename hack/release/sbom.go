package main

import (
	"cmp"
	"fmt"
	"regexp"
	"runtime/debug"
	"strings"
)

// sbom is an SPDX 2.3 document, as much of it as is said here.
type sbom struct {
	Version       string         `json:"spdxVersion"`
	DataLicense   string         `json:"dataLicense"`
	ID            string         `json:"SPDXID"`
	Name          string         `json:"name"`
	Namespace     string         `json:"documentNamespace"`
	Creation      creation       `json:"creationInfo"`
	Packages      []spdxPackage  `json:"packages"`
	Relationships []relationship `json:"relationships"`
}

type creation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	Name      string        `json:"name"`
	ID        string        `json:"SPDXID"`
	Version   string        `json:"versionInfo"`
	Location  string        `json:"downloadLocation"`
	Analyzed  bool          `json:"filesAnalyzed"`
	Concluded string        `json:"licenseConcluded"`
	Declared  string        `json:"licenseDeclared"`
	Copyright string        `json:"copyrightText"`
	Source    string        `json:"sourceInfo,omitempty"`
	Refs      []externalRef `json:"externalRefs,omitempty"`
}

type externalRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

const (
	noAssertion = "NOASSERTION"
	documentID  = "SPDXRef-DOCUMENT"
	ownLicence  = "Apache-2.0"
)

// notInID is what an SPDX identifier may not have.
var notInID = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

// newSBOM lists what a program was built from: itself, the standard library, and each module that is linked into it, with
// the hash that go.sum has of it.
func newSBOM(info *debug.BuildInfo) sbom {
	commit, when := setting(info, "vcs.revision"), cmp.Or(setting(info, "vcs.time"), "1970-01-01T00:00:00Z")
	version := cmp.Or(info.Main.Version, "unknown")
	main := newPackage(info.Main.Path, version, ownLicence)
	main.Source = "commit " + cmp.Or(commit, "unknown")
	s := sbom{
		Version: "SPDX-2.3", DataLicense: "CC0-1.0", ID: documentID,
		Name:          info.Main.Path + "-" + version,
		Namespace:     fmt.Sprintf("https://spdx.org/spdxdocs/%s-%s-%s", info.Main.Path, version, cmp.Or(commit, "unknown")),
		Creation:      creation{when, []string{"Tool: microvm-hack-release"}},
		Packages:      []spdxPackage{main},
		Relationships: []relationship{{documentID, "DESCRIBES", main.ID}},
	}
	library := newPackage("std", strings.TrimPrefix(info.GoVersion, "go"), "BSD-3-Clause")
	modules := []spdxPackage{library}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		p := newPackage(m.Path, m.Version, noAssertion)
		if m.Sum != "" {
			p.Source = "go.sum " + m.Sum
		}
		modules = append(modules, p)
	}
	for _, p := range modules {
		p.Refs = []externalRef{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + p.Name + "@" + p.Version}}
		s.Packages = append(s.Packages, p)
		s.Relationships = append(s.Relationships, relationship{main.ID, "DEPENDS_ON", p.ID})
	}
	return s
}

func newPackage(name, version, licence string) spdxPackage {
	return spdxPackage{
		Name: name, ID: "SPDXRef-" + notInID.ReplaceAllString(name, "-"), Version: version,
		Location: noAssertion, Concluded: noAssertion, Declared: licence, Copyright: noAssertion,
	}
}

// setting is one of the build's, or nothing.
func setting(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}
