package check

import (
	"os"
	"strings"
	"testing"
)

// Marks of a merge that nobody finished compile where they are inside a text.
func TestNothingIsLeftOfAMerge(t *testing.T) {
	files, err := load(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.HasPrefix(f.path, ".") {
			continue // a link to the caches may stand for their folder
		}
		for n, line := range strings.Split(read(t, f.path), "\n") {
			if strings.HasPrefix(line, "<<<<<<< ") || strings.HasPrefix(line, ">>>>>>> ") {
				t.Errorf("%s:%d: %s", f.path, n+1, line)
			}
		}
	}
}
