package main

import (
	"context"
	"io"
	"time"

	"github.com/spf13/pflag"

	"microvm/vmm/client"
)

// pauseTime bounds how long pausing or resuming may take. A vCPU comes out of
// KVM_RUN within microseconds, unless it waits for memory from another host.
const pauseTime = 30 * time.Second

var pauseCommand = command{
	name:     "pause",
	summary:  "Stop a VM's vCPUs until it is resumed",
	usage:    "pause VM",
	examples: []string{"microvm pause a"},
	prepare:  within(pauseTime, (*client.Client).Pause),
}

// within prepares a command that makes one call to one VM.
func within(limit time.Duration, call func(*client.Client, context.Context) error) func(*pflag.FlagSet) runner {
	return func(*pflag.FlagSet) runner {
		return func(ctx context.Context, args []string, _ io.Writer) error {
			c, err := dial(args)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			return call(c, ctx)
		}
	}
}
