package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/pflag"

	"microvm/vmm"
)

var logsCommand = command{
	name:    "logs",
	summary: "Print the log of a VM that was started with --detach",
	usage:   "logs VM",
	about: `
What the VM's process has to say, also after it has ended: a crash's registers
are here. What the guest printed is on its console.`,
	examples: []string{"microvm logs a"},
	prepare: func(*pflag.FlagSet) runner {
		return func(_ context.Context, args []string, stdout io.Writer) error {
			name, err := oneVM(args)
			if err != nil {
				return err
			}
			i, err := vmm.FindInstance(name)
			if err != nil {
				return err
			}
			log, err := os.Open(i.LogPath())
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("VM %s has no log: it was started without --detach and logs to its own stderr", name)
			}
			if err != nil {
				return err
			}
			defer log.Close()
			_, err = io.Copy(stdout, log)
			return err
		}
	},
}
