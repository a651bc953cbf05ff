package check

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// anyText stands, in a message that a document quotes, for what differs from case to case.
const anyText = "…"

// quoted is a line that quotes a message: > `MESSAGE`. The message may have backquotes of its own.
var quoted = regexp.MustCompile("(?m)^> `(.*)`$")

// messagesOccur wants each message that the document quotes to be in the code, in one piece.
func messagesOccur(files []file, document string) (complaints []string) {
	var texts []string
	for _, f := range files {
		if f.syntax != nil && !f.isTest() {
			texts = append(texts, f.texts()...)
		}
	}
	for _, m := range quoted.FindAllStringSubmatch(document, -1) {
		pieces := strings.Split(m[1], anyText)
		if !slices.ContainsFunc(texts, func(text string) bool { return holds(text, pieces) }) {
			complaints = append(complaints, fmt.Sprintf("docs/troubleshooting.md quotes %q, which no string of the program holds: quote what it says now, with %s for what differs", m[1], anyText))
		}
	}
	return complaints
}

// holds tells whether the pieces are in the text, in this order.
func holds(text string, pieces []string) bool {
	for _, piece := range pieces {
		_, after, found := strings.Cut(text, piece)
		if !found {
			return false
		}
		text = after
	}
	return true
}

// verb is one of a format.
var verb = regexp.MustCompile(`%[-+# 0-9.]*[a-zA-Z]`)

// texts are a file's string constants, those that are joined by + in one, with anyText for each verb of a format.
func (f file) texts() (texts []string) {
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		e, ok := n.(ast.Expr)
		if !ok {
			return true
		}
		text, whole := constant(e)
		if text != "" {
			texts = append(texts, verb.ReplaceAllString(text, anyText))
		}
		return !whole
	})
	return texts
}

// constant is the text of a literal, or of several joined by +; a part that is no literal is anyText. whole says that
// there is no other literal inside e.
func constant(e ast.Expr) (text string, whole bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind != token.STRING {
			return "", false
		}
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.BinaryExpr:
		if e.Op != token.ADD {
			return "", false
		}
		left, leftWhole := constant(e.X)
		right, rightWhole := constant(e.Y)
		if left == "" && right == "" {
			return "", false
		}
		for _, part := range []*string{&left, &right} {
			if *part == "" {
				*part = anyText
			}
		}
		return left + right, leftWhole && rightWhole
	}
	return "", false
}

// link is a link from a document to a file beside it.
var link = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)

// pagesLinked wants every page of docs to be in their index, and every link between documents to lead to a file.
func pagesLinked(files []file, read func(name string) string) (complaints []string) {
	const index = "docs/README.md"
	there, listed := map[string]bool{}, map[string]bool{}
	for _, f := range files {
		there[f.path] = true
		there[path.Dir(f.path)] = true
	}
	for _, f := range files {
		if path.Ext(f.path) != ".md" {
			continue
		}
		for _, m := range link.FindAllStringSubmatch(read(f.path), -1) {
			target := path.Join(path.Dir(f.path), m[1])
			if !there[target] {
				complaints = append(complaints, fmt.Sprintf("%s: a link to %s, which there is not", f.path, m[1]))
			}
			if f.path == index {
				listed[target] = true
			}
		}
	}
	for _, f := range files {
		if path.Dir(f.path) == "docs" && f.path != index && !listed[f.path] {
			complaints = append(complaints, fmt.Sprintf("%s: not in the index: add a line to %s", f.path, index))
		}
	}
	return complaints
}
