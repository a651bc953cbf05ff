package main

import (
	"context"
	"io"

	"github.com/spf13/pflag"

	"microvm/vmm/client"
)

var inspectCommand = command{
	name:     "inspect",
	summary:  "Describe a VM as JSON",
	usage:    "inspect VM",
	examples: []string{"microvm inspect a"},
	prepare: func(*pflag.FlagSet) runner {
		return func(ctx context.Context, args []string, stdout io.Writer) error {
			c, err := dial(args)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, askTime)
			defer cancel()
			info, err := c.Info(ctx)
			if err != nil {
				return err
			}
			return printJSON(stdout, info)
		}
	},
}

// dial finds the VM that the only argument names.
func dial(args []string) (*client.Client, error) {
	name, err := oneVM(args)
	if err != nil {
		return nil, err
	}
	return client.Dial(name)
}
