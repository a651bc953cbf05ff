package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"microvm/vmm"
)

var migrateStatusCommand = command{
	name:     "migrate-status",
	summary:  "Show how the migration of a VM goes",
	usage:    "migrate-status VM [--format text|json]",
	about:    "Shows the last migration of a VM that is, or was to be, moved away from this host.",
	examples: []string{"microvm migrate-status a --format json"},
	prepare: func(flags *pflag.FlagSet) runner {
		format := flags.String("format", "text", "text or json")
		return func(ctx context.Context, args []string, stdout io.Writer) error {
			name, err := oneVM(args)
			if err != nil {
				return err
			}
			if *format != "text" && *format != "json" {
				return usagef("--format %s: has to be text or json", *format)
			}
			c, err := vmm.Dial(name)
			if err != nil {
				return err
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
			var r rate
			_, err = fmt.Fprintln(stdout, r.line(e.Status))
			return err
		}
	},
}

var migrateCancelCommand = command{
	name:     "migrate-cancel",
	summary:  "Call off the migration of a VM",
	usage:    "migrate-cancel VM",
	about:    "The VM runs on here. Refused once the guest runs at the destination.",
	examples: []string{"microvm migrate-cancel a"},
	prepare: func(*pflag.FlagSet) runner {
		return func(ctx context.Context, args []string, _ io.Writer) error {
			name, err := oneVM(args)
			if err != nil {
				return err
			}
			c, err := vmm.Dial(name)
			if err != nil {
				return err
			}
			return c.CancelMigration(ctx)
		}
	},
}
