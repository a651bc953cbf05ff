package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"microvm/migration"
	"microvm/migration/snapshot"
	"microvm/vmm"
	"microvm/vmm/client"
)

var snapshotCommand = command{
	name:    "snapshot",
	summary: "Save a VM to a directory",
	usage:   "snapshot VM DIR [--leave-running] [--format text|json]",
	about: `
Writes all there is of a running or paused VM but its disks to the directory DIR, which
is made, or is empty: its memory, vCPUs and devices. The VM has ended then, its name is
free, and microvm restore DIR has it go on from there. If anything goes wrong, or at
Ctrl-C, DIR goes and the VM runs on.

With --leave-running the VM runs on in any case. Its memory is written while it runs,
and again what it writes meanwhile, so that it stands still only for the rest.

Disks are not copied: the snapshot is good as long as what it says of them is so, and
restore refuses a disk that has been written to since. To have the VM of now and that
of the snapshot both, copy its disks while it stands still:

  microvm pause VM && microvm snapshot VM DIR --leave-running &&
    cp --reflink=auto root.img root-then.img && microvm resume VM

and restore it with --disk root-then.img. A VM that is saved while it is paused is
paused when it is restored (microvm resume).

Memory has what the guest's has, keys and passwords too: DIR is for its owner alone.

Exit status: 0 the snapshot is on the disk; 4 refused, as of a VM that is migrating; 5
failed or called off, and the VM runs on.`,
	examples: []string{
		"microvm snapshot a /var/lib/vms/a",
		"microvm snapshot a /var/lib/vms/a --leave-running --format json",
	},
	prepare: func(flags *pflag.FlagSet) runner {
		var leave bool
		var format string
		flags.BoolVar(&leave, "leave-running", false, "let the VM go on here")
		flags.StringVar(&format, "format", "text", "on stdout: text or json")
		return func(ctx context.Context, args []string, stdout io.Writer) error {
			if len(args) != 2 {
				return usagef("give the name of one VM and a directory")
			}
			if err := checkFormat(format, "text"); err != nil {
				return err
			}
			c, err := client.Dial(args[0])
			if err != nil {
				return err
			}
			rep, err := takeSnapshot(ctx, c, args[1], leave)
			if err == nil && !leave {
				// Its name may be wanted at once: for restore.
				err = c.Gone(ctx)
			}
			if err != nil {
				return err
			}
			if format == "json" {
				return json.NewEncoder(stdout).Encode(rep)
			}
			return printSaved(stdout, args[1], rep)
		}
	},
}

// takeSnapshot has a VM's process write what this one has made to be written to: that
// process may be confined to where it cannot make any.
func takeSnapshot(ctx context.Context, c *client.Client, dir string, leave bool) (rep migration.SaveReport, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return rep, err
	}
	files, err := snapshot.Create(dir)
	if err != nil {
		return rep, &exitError{status: exitRefused, err: err}
	}
	defer func() {
		if err == nil {
			return
		}
		if rerr := snapshot.Remove(dir); rerr != nil {
			slog.Warn("what was written stays behind, and is no snapshot", "err", rerr)
		}
	}()
	signals, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	defer context.AfterFunc(signals, func() {
		stop() // a second one ends this process
		// An error is that there is none any more.
		_ = c.CancelSnapshot(ctx)
	})()
	return c.Snapshot(ctx, vmm.SnapshotRequest{LeaveRunning: leave, Dir: dir, Files: files})
}

func printSaved(w io.Writer, dir string, r migration.SaveReport) error {
	what := "ended here"
	if r.LeftRunning {
		what = fmt.Sprintf("stood still for %v, after %d passes", time.Duration(r.DowntimeNS).Round(100*time.Microsecond), r.Passes)
	}
	_, err := fmt.Fprintf(w, "snapshot   of %s in %s: the VM %s\ntotal      %v\nmemory     %s, of which %s were written\n",
		r.VM, dir, what, time.Duration(r.TotalNS).Round(time.Millisecond), bytesText(r.MemoryBytes), bytesText(r.BytesWritten))
	return err
}
