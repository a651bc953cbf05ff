package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// A command is one thing that microvm does. Each has a file of its own.
type command struct {
	name    string
	summary string // one line, for the list
	usage   string // after "microvm "
	// about is the long help; it may be empty.
	about    string
	examples []string
	// flags defines the command's flags, into variables that prepare's
	// result closes over.
	prepare func(*pflag.FlagSet) runner
}

// A runner does a command's work with the arguments that are not flags.
// Results go to stdout.
type runner func(ctx context.Context, args []string, stdout io.Writer) error

// A usageError is a command line that makes no sense: exit status 2.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

func (c *command) flagSet() (*pflag.FlagSet, runner) {
	flags := pflag.NewFlagSet(c.name, pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.SortFlags = false
	return flags, c.prepare(flags)
}

func (c *command) execute(ctx context.Context, args []string, stdout io.Writer) error {
	flags, run := c.flagSet()
	if err := flags.Parse(args); err != nil {
		if err == pflag.ErrHelp {
			return err
		}
		return usagef("%v", err)
	}
	return run(ctx, flags.Args(), stdout)
}

func (c *command) printHelp(w io.Writer) {
	fmt.Fprintf(w, "%s\n\nusage: microvm %s\n", c.summary, c.usage)
	if c.about != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(c.about))
	}
	if flags, _ := c.flagSet(); flags.HasFlags() {
		fmt.Fprintf(w, "\nflags:\n%s", flags.FlagUsages())
	}
	if len(c.examples) > 0 {
		fmt.Fprintf(w, "\nexamples:\n")
		for _, e := range c.examples {
			fmt.Fprintf(w, "  %s\n", e)
		}
	}
}

func printHelp(w io.Writer) {
	fmt.Fprintf(w, "microvm runs virtual machines on KVM and moves them between hosts while they run.\n\n")
	fmt.Fprintf(w, "usage: microvm COMMAND [ARGUMENT...]\n\ncommands:\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-16s %s\n", c.name, c.summary)
	}
	fmt.Fprintf(w, "\nmicrovm help COMMAND says more about one.\n")
}

// oneVM takes the only argument of a command that is about one VM.
func oneVM(args []string) (string, error) {
	if len(args) != 1 {
		return "", usagef("give the name of one VM")
	}
	return args[0], nil
}

// checkFormat refuses a --format that is neither of these.
func checkFormat(format, text string) error {
	if format != text && format != "json" {
		return usagef("--format %s: has to be %s or json", format, text)
	}
	return nil
}

// noArguments refuses arguments of a command that takes none.
func noArguments(args []string) error {
	if len(args) > 0 {
		return usagef("unexpected argument %q", args[0])
	}
	return nil
}
