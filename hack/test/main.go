// Command test runs the project's tests and ends with a summary: how many ran, passed and were skipped, and what would
// make each skipped one run.
//
//	go run ./hack/test [--only PASS]... [--deadline D] [-v]
//	go run ./hack/test --fuzz D
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
)

// pass is one run of `go test`.
type pass struct {
	name string
	// packages are those that match an element of in and no element of out.
	in, out []string
	flags   []string
}

// passes are what there is to test, in the order of what fails soonest. One after the other: the lab emulates two
// CPUs, and should not share this machine's with other tests. The lab comes last, being slowest.
var passes = []pass{
	{name: "check", in: []string{"./hack/check"}},
	{name: "unit", in: []string{"./..."}, out: []string{"microvm/hack/check", "microvm/hack/lab"}},
	{
		name: "race", flags: []string{"-race", "-short"}, // short of what only takes longer, and races no more
		in: []string{"./cmd/...", "./vmm/...", "./migration/...", "./devices/...", "./memslot/...", "./kvm/..."},
	},
	{name: "lab", in: []string{"./hack/lab"}},
}

func main() {
	var only []string
	var deadline, fuzz time.Duration
	var verbose bool
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	flags.StringSliceVar(&only, "only", nil, "run only these passes: "+passNames())
	flags.DurationVar(&deadline, "deadline", 40*time.Minute, "for everything together")
	flags.DurationVar(&fuzz, "fuzz", 0, "instead of the tests, run every fuzz target for this long")
	flags.BoolVarP(&verbose, "verbose", "v", false, "show the output of tests that pass too, as it comes")
	if err := flags.Parse(os.Args[1:]); errors.Is(err, pflag.ErrHelp) {
		os.Exit(0)
	} else if err != nil || flags.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "test: %v, arguments %q\n%s", err, flags.Args(), flags.FlagUsages())
		os.Exit(2)
	}
	for _, name := range only {
		if !slices.ContainsFunc(passes, func(p pass) bool { return p.name == name }) {
			fmt.Fprintf(os.Stderr, "test: no pass %q; there are: %s\n", name, passNames())
			os.Exit(2)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	if fuzz > 0 {
		os.Exit(runFuzz(ctx, fuzz))
	}
	release := reserveHugePages()
	end := time.Now().Add(deadline)
	var all summary
	for _, p := range passes {
		if len(only) == 0 || slices.Contains(only, p.name) {
			p.run(ctx, &all, time.Until(end), verbose)
		}
	}
	release()
	all.print(os.Stdout)
	if !all.good() {
		os.Exit(1)
	}
}

func passNames() string {
	var names []string
	for _, p := range passes {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}
