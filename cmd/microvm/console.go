package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"microvm/devices/console"
	"microvm/vmm"
)

var consoleCommand = command{
	name:    "console",
	summary: "Connect this terminal to a VM's console",
	usage:   "console VM",
	about: `
Shows the last of what the guest printed, then what it prints; what is typed
goes to the guest. Ctrl-a x leaves, the VM runs on; Ctrl-a h lists the keys.
A virtio console (run --virtio-console) gets the size of this terminal, and hears
when it changes: of several terminals, the last that was attached or resized.
Without a terminal, what is read from stdin is typed, and the command ends
with the VM.`,
	examples: []string{"microvm console a"},
	prepare: func(*pflag.FlagSet) runner {
		return func(ctx context.Context, args []string, stdout io.Writer) error {
			c, err := dial(args)
			if err != nil {
				return err
			}
			conn, err := c.Console(ctx)
			if err != nil {
				return err
			}
			defer conn.Close()
			restore, err := console.Raw(os.Stdin)
			if err != nil {
				return err
			}
			var in io.Reader = os.Stdin
			if term.IsTerminal(int(os.Stdin.Fd())) {
				fmt.Fprintf(os.Stderr, "console of %s; Ctrl-a x leaves\r\n", c.Instance.Name)
				followSize(ctx, os.Stdin, func(columns, rows uint16) {
					// Without a virtio console there is nobody to tell.
					_ = c.ResizeConsole(ctx, vmm.ConsoleSize{Columns: columns, Rows: rows})
				})
				in = console.NewFilter(os.Stdin, os.Stderr)
			}
			go func() {
				_, err := io.Copy(conn, in)
				if errors.Is(err, console.ErrLeave) {
					conn.Close()
				}
			}()
			_, err = io.Copy(stdout, conn)
			if errors.Is(err, net.ErrClosed) {
				err = nil
			}
			return errors.Join(err, restore())
		}
	},
}
