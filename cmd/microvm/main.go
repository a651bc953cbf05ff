// Command microvm runs virtual machines on KVM and moves them between hosts
// while they run.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/pflag"

	"microvm/vmm"
)

// Exit statuses; run has some more, see vmm.ExitCode.
const (
	exitDone    = 0
	exitFailure = 1
	exitUsage   = 2
	exitNoVM    = 3
	exitTimeout = vmm.ExitTimeout
	// exitInterrupted is what shells make of SIGINT: nobody waited for the answer.
	exitInterrupted = 130
)

// commands is all that microvm can do, in the order of its help. It is filled
// when the program starts, since some commands tell about all of them.
var commands []*command

func init() {
	commands = []*command{
		&demoCommand,
		&runCommand,
		&receiveCommand,
		&migrateCommand,
		&migrateStatusCommand,
		&migrateCancelCommand,
		&reportCommand,
		&doctorCommand,
		&psCommand,
		&inspectCommand,
		&statsCommand,
		&metricsCommand,
		&consoleCommand,
		&logsCommand,
		&pauseCommand,
		&resumeCommand,
		&snapshotCommand,
		&restoreCommand,
		&growCommand,
		&balloonCommand,
		&stopCommand,
		&waitCommand,
		&completionCommand,
		&manCommand,
		&versionCommand,
	}
}

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	os.Exit(dispatch(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// dispatch finds the command and runs it; it returns the exit status.
func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		printHelp(stderr)
		return exitUsage
	}
	switch args[0] {
	case "help", "-h", "--help":
		if len(args) > 1 {
			if c := find(args[1]); c != nil {
				c.printHelp(stdout)
				return exitDone
			}
		}
		printHelp(stdout)
		return exitDone
	case "--version":
		args[0] = "version"
	}
	c := find(args[0])
	if c == nil {
		fmt.Fprintf(stderr, "microvm: no such command: %s (microvm help lists them)\n", args[0])
		return exitUsage
	}
	err := c.execute(ctx, args[1:], stdout)
	if errors.Is(err, pflag.ErrHelp) {
		c.printHelp(stdout)
		return exitDone
	}
	var usage *usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(stderr, "microvm %s: %v\nusage: microvm %s\n", c.name, err, c.usage)
		return exitUsage
	}
	if err != nil && !isQuiet(err) {
		fmt.Fprintf(stderr, "microvm %s: %v\n", c.name, err)
	}
	return exitStatus(err)
}

// find returns the command called name, or nil.
func find(name string) *command {
	for _, c := range commands {
		if c.name == name {
			return c
		}
	}
	return nil
}

// An exitError is an error that decides the exit status.
type exitError struct {
	status int
	err    error // nil: there is nothing more to say
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// isQuiet says that the user has been told already.
func isQuiet(err error) bool {
	var exit *exitError
	return errors.As(err, &exit) && exit.err == nil
}

// exitStatus maps an error to the process's exit status.
func exitStatus(err error) int {
	var exit *exitError
	var api *vmm.APIError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &exit):
		return exit.status
	case errors.Is(err, vmm.ErrNoSuchVM):
		return exitNoVM
	case errors.As(err, &api):
		return api.ExitCode
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	}
	return vmm.ExitCode(err)
}
