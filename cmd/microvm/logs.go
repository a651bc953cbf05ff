package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"time"

	"github.com/spf13/pflag"

	"microvm/vmm"
	"microvm/vmm/client"
)

var logsCommand = command{
	name:    "logs",
	summary: "Print the log of a VM that was started with --detach, or what its guest printed",
	usage:   "logs VM [--console] [--follow]",
	about: `
What the VM's process has to say, also after it has ended: a crash's registers
are here. One that was started without --detach logs to its own stderr, which
systemd keeps in the journal: journalctl -u microvm@a. Of a long log there are the last
4 to 8 MiB.

--console is what the guest printed: the last 64 KiB, which the VM's process keeps in
memory, and leaves beside the log of a VM that was started with --detach when it has
ended. More than that is kept by whoever listens: microvm logs a --console --follow.

--follow goes on until the VM has ended.`,
	examples: []string{"microvm logs a", "microvm logs a --follow", "microvm logs a --console", "microvm logs a --console --follow"},
	prepare: func(flags *pflag.FlagSet) runner {
		follow := flags.BoolP("follow", "f", false, "go on until the VM has ended")
		console := flags.Bool("console", false, "what the guest printed")
		return func(ctx context.Context, args []string, stdout io.Writer) error {
			name, err := oneVM(args)
			if err != nil {
				return err
			}
			i, err := vmm.FindInstance(name)
			if err != nil {
				return err
			}
			if *console {
				return copyConsole(ctx, i, *follow, stdout)
			}
			return copyLog(ctx, i, *follow, stdout)
		}
	},
}

// followEvery is how often a log is looked at that is followed.
const followEvery = 100 * time.Millisecond

// copyLog prints the log, and if it is followed what comes until the VM has ended.
func copyLog(ctx context.Context, i vmm.Instance, follow bool, stdout io.Writer) error {
	log, err := os.Open(i.LogPath())
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("VM %s has no log: it was started without --detach and logs to its own stderr", i.Name)
	}
	if err != nil {
		return err
	}
	defer log.Close()
	lines, err := readLog(log)
	if err != nil {
		return err
	}
	for {
		// The VM is asked for before the log is read: what it wrote last is there.
		now, err := vmm.FindInstance(i.Name)
		ended := err != nil || !now.Running || now.PID != i.PID
		if _, err := io.Copy(stdout, lines); err != nil || ended || !follow {
			return err
		}
		select {
		case <-time.After(followEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// copyConsole prints what the guest printed, from its process, or from what that
// left.
func copyConsole(ctx context.Context, i vmm.Instance, follow bool, stdout io.Writer) error {
	if !i.Running {
		printed, err := os.Open(i.PrintedPath())
		if errors.Is(err, fs.ErrNotExist) {
			why := "it was started without --detach"
			if i.Dead {
				why = vmm.WhyDead
			}
			return fmt.Errorf("VM %s has left nothing of what its guest printed: %s", i.Name, why)
		}
		if err != nil {
			return err
		}
		defer printed.Close()
		_, err = io.Copy(stdout, printed)
		return err
	}
	conn, err := client.New(i).Console(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if !follow {
		// Who has no more to type is shown what there is, and no more.
		if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
			return err
		}
	}
	_, err = io.Copy(stdout, conn)
	return err
}
