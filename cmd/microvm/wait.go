package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"microvm/vmm"
	"microvm/vmm/client"
)

var waitCommand = command{
	name:    "wait",
	summary: "Wait until a VM has ended, and say how",
	usage:   "wait VM",
	about: `
Prints how the VM ended, and exits with the status that its own process has:
see microvm help run.`,
	examples: []string{"microvm wait a"},
	prepare: func(*pflag.FlagSet) runner {
		return func(ctx context.Context, args []string, stdout io.Writer) error {
			name, err := oneVM(args)
			if err != nil {
				return err
			}
			exit, err := waitFor(ctx, name)
			if err != nil {
				return err
			}
			fmt.Fprintln(stdout, exit.Reason)
			if exit.Code != exitDone {
				return &exitError{status: exit.Code}
			}
			return nil
		}
	},
}

// waitFor asks the VM's process, or, if that has gone, its state directory.
func waitFor(ctx context.Context, name string) (vmm.ExitStatus, error) {
	i, err := vmm.FindInstance(name)
	if err != nil {
		return vmm.ExitStatus{}, err
	}
	c := client.New(i)
	if i.Running {
		exit, err := c.Wait(ctx)
		if err == nil {
			return exit, nil
		}
		// It may have ended before it could be asked, and be about to leave.
		leaving, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		if c.Gone(leaving) != nil {
			return vmm.ExitStatus{}, err
		}
	}
	if exit := c.Instance.Exit; exit != nil {
		return *exit, nil
	}
	return vmm.ExitStatus{}, fmt.Errorf("%s: %w: its process ended without a word", name, vmm.ErrNoSuchVM)
}
