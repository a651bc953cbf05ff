package check

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// requireLine and toolLine are what go.mod says on a line of its own or within a block.
var (
	requireLine = regexp.MustCompile(`^(?:require\s+)?(\S+)\s+(v\S+)`)
	toolLine    = regexp.MustCompile(`^tool\s+(\S+)$`)
)

// goMod returns the modules that go.mod requires, and the packages that it names as tools.
func goMod(text string) (modules, tools []string) {
	inTools := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "tool (":
			inTools = true
		case line == ")":
			inTools = false
		case inTools && line != "" && !strings.HasPrefix(line, "//"):
			tools = append(tools, line)
		default:
			if m := toolLine.FindStringSubmatch(line); m != nil {
				tools = append(tools, m[1])
			} else if m := requireLine.FindStringSubmatch(line); m != nil {
				modules = append(modules, m[1])
			}
		}
	}
	return modules, tools
}

// moduleOf returns the module that a package belongs to: the longest path that its own begins with.
func moduleOf(pkg string, modules []string) string {
	longest := ""
	for _, m := range modules {
		if (pkg == m || strings.HasPrefix(pkg, m+"/")) && len(m) > len(longest) {
			longest = m
		}
	}
	return longest
}

// dependenciesExplained wants a line that begins "- `MODULE`" in the document for each module that our code imports
// or uses as a tool, and no such line for one that go.mod does not name.
func dependenciesExplained(files []file, mod, document string) (complaints []string) {
	modules, tools := goMod(mod)
	used := map[string]string{} // by module: one who uses it
	for _, tool := range tools {
		used[moduleOf(tool, modules)] = "go.mod's tool line"
	}
	for _, f := range files {
		for _, imported := range f.imports() {
			if m := moduleOf(imported, modules); m != "" {
				used[m] = f.path
			}
		}
	}
	explained := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^- `([^`]+)`").FindAllStringSubmatch(document, -1) {
		explained[m[1]] = true
	}
	for m, user := range used {
		if !explained[m] {
			complaints = append(complaints, fmt.Sprintf("docs/dependencies.md: no line on %s, used by %s: why it, under which licence", m, user))
		}
	}
	for m := range explained {
		if !slices.Contains(modules, m) {
			complaints = append(complaints, fmt.Sprintf("docs/dependencies.md: %s is not in go.mod any more", m))
		}
	}
	slices.Sort(complaints)
	return complaints
}
