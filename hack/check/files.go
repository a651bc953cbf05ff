package check

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// file is one file of the project. Syntax and fset are nil unless it is Go.
type file struct {
	path   string // from the project's root, with slashes
	size   int64
	syntax *ast.File
	fset   *token.FileSet
}

// load reads the project under root. Folders that begin with a dot are not of the project (git, the caches), but for
// .ci; bin and dist are what builds leave.
func load(root fs.FS) ([]file, error) {
	var files []file
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			hidden := strings.HasPrefix(d.Name(), ".") && p != "." && p != ".ci"
			if hidden || p == "bin" || p == "dist" {
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f := file{path: p, size: info.Size()}
		if path.Ext(p) == ".go" {
			source, err := fs.ReadFile(root, p)
			if err != nil {
				return err
			}
			f.fset = token.NewFileSet()
			if f.syntax, err = parser.ParseFile(f.fset, p, source, parser.ParseComments|parser.SkipObjectResolution); err != nil {
				return err
			}
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the project: %w", err)
	}
	return files, nil
}

func (f file) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// imports are the import paths of a Go file; none for other files.
func (f file) imports() []string {
	if f.syntax == nil {
		return nil
	}
	var paths []string
	for _, spec := range f.syntax.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}
