package check

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

const module = "microvm"

// layers are the project's folders from the top down; a package may import only from its own folder and below.
var layers = []string{"hack", "cmd", "vmm", "migration", "devices", "guest", "memslot", "kvm"}

// apart are pairs that do not import each other, though one stands below the other in the list.
var apart = [][2]string{
	{"devices", "guest"},
	{"migration", "devices"}, // it knows devices only through its own small interfaces
	{"migration", "guest"},
}

// importsPointDown wants the folders to depend on each other as layers and apart say. Tests may use what they test
// against, as far as the compiler allows.
func importsPointDown(files []file) (complaints []string) {
	for _, f := range files {
		if f.isTest() {
			continue
		}
		for _, imported := range f.imports() {
			if reason := refused(path.Dir(f.path), imported); reason != "" {
				complaints = append(complaints, fmt.Sprintf("%s imports %s: %s", f.path, imported, reason))
			}
		}
	}
	return complaints
}

// refused returns why a file in dir may not import a package, or nothing.
func refused(dir, imported string) string {
	inside, ours := strings.CutPrefix(imported, module+"/")
	if !ours || dir == "." {
		return ""
	}
	from, _, _ := strings.Cut(dir, "/")
	to, _, _ := strings.Cut(inside, "/")
	above, below := slices.Index(layers, from), slices.Index(layers, to)
	switch {
	case above < 0:
		return from + " is not in the list of layers (hack/check/imports.go)"
	case below < 0:
		return to + " is not in the list of layers (hack/check/imports.go)"
	case below < above:
		return fmt.Sprintf("%s stands above %s", to, from)
	case slices.Contains(apart, [2]string{from, to}), slices.Contains(apart, [2]string{to, from}):
		return fmt.Sprintf("%s and %s are kept apart", from, to)
	}
	return ""
}
