package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"microvm/migration"
	"microvm/vmm"
	"microvm/vmm/client"
)

var migrateStatusCommand = command{
	name:    "migrate-status",
	summary: "Show how the migration of a VM goes",
	usage:   "migrate-status VM [--watch] [--format text|json] [--events] [--plot FILE.svg|FILE.html]",
	about: `
Shows the last migration of a VM that is, or was to be, moved away from this
host. --watch goes on until the migration has ended or is paused, and then has
the exit status of migrate; what it shows is one line that changes on a
terminal, a line each time elsewhere, an object a line with --format json. Ctrl-C
ends it with status 130; the migration goes on.

--events shows what has happened instead, a JSON object a line (docs/events.md),
from the beginning on; with --watch also what still happens. --plot draws it, as
microvm report does. A VM that has arrived elsewhere has ended here, and its events
with it: for those, microvm migrate --events FILE.`,
	examples: []string{"microvm migrate-status a --format json", "microvm migrate-status a --watch", "microvm migrate-status a --plot a.svg"},
	prepare: func(flags *pflag.FlagSet) runner {
		format := flags.String("format", "text", "text or json")
		events := flags.Bool("events", false, "what has happened, a JSON object a line")
		plot := flags.String("plot", "", "draw it into a `FILE` that ends in .svg or .html")
		watch := flags.Bool("watch", false, "until the migration has ended")
		return func(ctx context.Context, args []string, stdout io.Writer) error {
			name, err := oneVM(args)
			if err != nil {
				return err
			}
			if err := checkFormat(*format, "text"); err != nil {
				return err
			}
			c, err := client.Dial(name)
			if err != nil {
				return err
			}
			if *plot != "" {
				if *events || *watch || flags.Changed("format") {
					return usagef("--plot excludes --events, --watch and --format")
				}
				return plotMigration(ctx, c, *plot)
			}
			if *events {
				return showEvents(ctx, c, *watch, stdout)
			}
			if *watch {
				return watchMigration(ctx, c, *format, stdout)
			}
			e, err := c.Migration(ctx)
			if err != nil {
				return err
			}
			if *format == "json" {
				return json.NewEncoder(stdout).Encode(e)
			}
			if e.Report != nil {
				return printReport(stdout, e.Report)
			}
			var r pace
			if _, err := fmt.Fprintln(stdout, r.line(e.Status, 0)); err != nil || e.Status.Waits == nil {
				return err
			}
			return printWaits(stdout, e.Status.Waits)
		}
	},
}

// watchMigration shows a migration until it has ended.
func watchMigration(ctx context.Context, c *client.Client, format string, stdout io.Writer) error {
	var show progress = &plainProgress{w: stdout}
	out := json.NewEncoder(stdout)
	if f, ok := stdout.(*os.File); format == "json" {
		show = eventProgress{out}
	} else if ok && term.IsTerminal(int(f.Fd())) {
		show = &liveProgress{terminal: f}
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	last, err := c.WatchMigration(ctx, show.update)
	show.end()
	if ctx.Err() != nil {
		return &exitError{status: exitInterrupted}
	}
	if err != nil {
		return err
	}
	if format == "json" {
		err = out.Encode(last)
	} else {
		err = printReport(stdout, last.Report)
	}
	return errors.Join(err, migrationExit(last))
}

// eventProgress writes each status as the event that the API gives.
type eventProgress struct{ out *json.Encoder }

func (p eventProgress) update(s migration.Status) { _ = p.out.Encode(vmm.MigrationEvent{Status: s}) }
func (p eventProgress) end()                      {}

var migrateCancelCommand = command{
	name:     "migrate-cancel",
	summary:  "Call off the migration of a VM",
	usage:    "migrate-cancel VM",
	about:    "The VM runs on here. Refused once the guest has been given to the destination,\nand when the migration has ended.",
	examples: []string{"microvm migrate-cancel a"},
	prepare: func(*pflag.FlagSet) runner {
		return func(ctx context.Context, args []string, _ io.Writer) error {
			name, err := oneVM(args)
			if err != nil {
				return err
			}
			c, err := client.Dial(name)
			if err != nil {
				return err
			}
			return c.CancelMigration(ctx)
		}
	},
}
