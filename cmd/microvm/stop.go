package main

import (
	"context"
	"io"
	"time"

	"github.com/spf13/pflag"
)

// stopSlack is how much longer than the guest's own time a stop may take.
const stopSlack = 10 * time.Second

var stopCommand = command{
	name:    "stop",
	summary: "Shut a VM down",
	usage:   "stop VM [--force] [--timeout D]",
	about: `
Presses the guest's power button and waits for it to power off; when the command
returns, the VM's name is free. A guest that
does not know ACPI, such as the tiny kernel, ignores that: exit status 124 after
the timeout. With --force the power is cut.`,
	examples: []string{"microvm stop a", "microvm stop a --force"},
	prepare: func(flags *pflag.FlagSet) runner {
		force := flags.BoolP("force", "f", false, "cut the power")
		timeout := flags.Duration("timeout", 30*time.Second, "how long the guest may take")
		return func(ctx context.Context, args []string, _ io.Writer) error {
			c, err := dial(args)
			if err != nil {
				return err
			}
			if *timeout < 0 {
				return usagef("--timeout %v: has to be positive", *timeout)
			}
			ctx, cancel := context.WithTimeout(ctx, *timeout+stopSlack)
			defer cancel()
			if err := c.Stop(ctx, *force, *timeout); err != nil {
				return err
			}
			return c.Gone(ctx)
		}
	},
}
