package main

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
)

// lookup is the cost of finding a memslot, as the package's own benchmark has it.
type lookup struct{}

func (lookup) lab() bool { return false }

func (lookup) sample(b *bench, s side) (figures, error) {
	if s == qemu {
		return nil, absent("has no such figure")
	}
	cmd := exec.CommandContext(b.context, "go", "test", "-run", "^$", "-bench", "^BenchmarkFind$", "-benchmem", "-benchtime", "0.2s", "microvm/memslot")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go test -bench: %w: %s", err, out)
	}
	return parseBenchmarks(string(out))
}

// benchmarkLine is a line of `go test -bench -benchmem`: BenchmarkFind/NAME-CPUS N T ns/op B B/op A allocs/op.
var benchmarkLine = regexp.MustCompile(`(?m)^BenchmarkFind/(\S+?)(?:-\d+)?\s+\d+\s+([\d.]+) ns/op\s+[\d.]+ B/op\s+(\d+) allocs/op`)

// parseBenchmarks gives the time of each, and the allocations of all together.
func parseBenchmarks(text string) (figures, error) {
	f := figures{"allocs": 0}
	for _, m := range benchmarkLine.FindAllStringSubmatch(text, -1) {
		time, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", m[0], err)
		}
		allocs, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", m[0], err)
		}
		f[m[1]] = time
		f["allocs"] += allocs
	}
	if len(f) == 1 {
		return nil, fmt.Errorf("no benchmark in:\n%s", text)
	}
	return f, nil
}
