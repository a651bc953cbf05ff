package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

var fuzzTarget = regexp.MustCompile(`^Fuzz\w*$`)

// runFuzz runs every fuzz target of every package for d and returns the exit status.
func runFuzz(ctx context.Context, d time.Duration) int {
	packages, err := pass{in: []string{"./..."}}.packages(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		return 1
	}
	status := 0
	for _, pkg := range packages {
		out, err := command(ctx, "test", "-list", "^Fuzz", pkg).CombinedOutput()
		if err != nil {
			fmt.Fprintf(os.Stderr, "fuzz: %s: %v\n%s", pkg, err, out)
			status = 1
			continue
		}
		for target := range strings.FieldsSeq(string(out)) {
			if !fuzzTarget.MatchString(target) {
				continue
			}
			fmt.Printf("=== %s in %s for %v\n", target, pkg, d)
			cmd := command(ctx, "test", "-run", "^$", "-fuzz", "^"+target+"$", "-fuzztime", d.String(), pkg)
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			if err := cmd.Run(); err != nil {
				fmt.Fprintf(os.Stderr, "fuzz: %s in %s: %v\n", target, pkg, err)
				status = 1
			}
		}
	}
	return status
}
