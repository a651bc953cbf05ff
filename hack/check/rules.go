package check

import (
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strings"
)

// maxFileSize is the size in bytes past which a file surely holds more than one idea.
const maxFileSize = 24 << 10

// fileSizes wants every file small. Lists that tools write are as long as they are.
func fileSizes(files []file) (complaints []string) {
	for _, f := range files {
		if f.size > maxFileSize && path.Base(f.path) != "go.sum" {
			complaints = append(complaints, fmt.Sprintf("%s: %d bytes, more than %d: split it by idea", f.path, f.size, maxFileSize))
		}
	}
	return complaints
}

// unsafeFiles wants `unsafe` imported only where the name of the file says so.
func unsafeFiles(files []file) (complaints []string) {
	for _, f := range files {
		named := strings.HasSuffix(f.path, "_unsafe.go") || strings.HasSuffix(f.path, "_unsafe_test.go")
		imports := slices.Contains(f.imports(), "unsafe")
		switch {
		case imports && !named:
			complaints = append(complaints, f.path+": imports unsafe; only *_unsafe.go and *_unsafe_test.go may")
		case named && !imports:
			complaints = append(complaints, f.path+": is named _unsafe and does not import it")
		}
	}
	return complaints
}

// noCgo wants no file to import "C": the program is one static file, and stays so.
func noCgo(files []file) (complaints []string) {
	for _, f := range files {
		if slices.Contains(f.imports(), "C") {
			complaints = append(complaints, f.path+`: imports "C"`)
		}
	}
	return complaints
}

// skipsSayWhy wants every skipped test to say what would make it run.
func skipsSayWhy(files []file) (complaints []string) {
	for _, f := range files {
		if !f.isTest() && !strings.HasPrefix(f.path, "hack/") {
			continue
		}
		if f.syntax == nil {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			selector, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			name := selector.Sel.Name
			if name == "SkipNow" || (name == "Skip" || name == "Skipf") && len(call.Args) == 0 {
				complaints = append(complaints, fmt.Sprintf("%s: %s without a message that names the remedy", f.fset.Position(call.Pos()), name))
			}
			return true
		})
	}
	return complaints
}

// packagesDocumented wants every folder of Go code to say what it is, in a package comment.
func packagesDocumented(files []file) (complaints []string) {
	documented := map[string]bool{}
	for _, f := range files {
		if f.syntax == nil || f.isTest() {
			continue
		}
		dir := path.Dir(f.path)
		documented[dir] = documented[dir] || f.syntax.Doc != nil
	}
	for dir, ok := range documented {
		if !ok {
			complaints = append(complaints, dir+": no package comment")
		}
	}
	slices.Sort(complaints)
	return complaints
}
