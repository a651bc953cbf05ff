package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"microvm/migration/plot"
	"microvm/vmm/client"
)

var reportCommand = command{
	name:    "report",
	summary: "Show what a migration left: its report or its events",
	usage:   "report FILE|- [--format text|svg|html] [-o OUT]",
	about: `
FILE is what microvm migrate --report json printed, or what --events FILE wrote
(docs/events.md), on either side; - is stdin. Of the events of several migrations
it shows the last.

As text it is what microvm migrate prints. As SVG it is a picture, and as HTML a
page with the picture and the text, which fetches nothing: when which pages went
and why, how often the guest touched one that was not there and how long it
waited, and what the downtime was spent on. Only events have times; a report
alone gives what can be said without them. See docs/pictures.md.`,
	examples: []string{
		"microvm migrate a tcp:192.0.2.7:4444 --mode hybrid --events a.json && microvm report a.json -o a.svg",
		"microvm report a.json -o a.html",
		"microvm migrate a tcp:192.0.2.7:4444 --postcopy --report json | microvm report - --format svg > a.svg",
	},
	prepare: func(flags *pflag.FlagSet) runner {
		format := flags.String("format", "", "text, svg or html (default what OUT ends in, otherwise text)")
		out := flags.StringP("output", "o", "", "write to a `file` instead of stdout")
		return func(_ context.Context, args []string, stdout io.Writer) error {
			if len(args) != 1 {
				return usagef("give the file of a report or of events, or - for stdin")
			}
			draw, err := drawing(*format, *out)
			if err != nil {
				return err
			}
			r, err := readRecord(args[0])
			if err != nil {
				return err
			}
			return write(*out, stdout, r, draw)
		}
	},
}

// A drawer writes a migration in some form.
type drawer func(w io.Writer, r *plot.Record) error

var drawers = map[string]drawer{
	"text": printRecord,
	"svg":  func(w io.Writer, r *plot.Record) error { return r.SVG(w) },
	"html": func(w io.Writer, r *plot.Record) error {
		var text bytes.Buffer
		if err := printRecord(&text, r); err != nil {
			return err
		}
		return r.HTML(w, text.String())
	},
}

// drawing gives the form that format names, or else the end of a file's name.
func drawing(format, out string) (drawer, error) {
	if format == "" {
		format = "text"
		if ext := filepath.Ext(out); ext == ".svg" || ext == ".html" {
			format = ext[1:]
		}
	}
	draw := drawers[format]
	if draw == nil {
		return nil, usagef("--format %s: has to be text, svg or html", format)
	}
	return draw, nil
}

func readRecord(name string) (*plot.Record, error) {
	in := os.Stdin
	if name != "-" {
		var err error
		if in, err = os.Open(name); err != nil {
			return nil, err
		}
		defer in.Close()
	}
	r, err := plot.Read(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if r.Torn {
		fmt.Fprintf(os.Stderr, "microvm report: %s: the last event is not whole, and left out\n", name)
	}
	return r, nil
}

// write writes a picture to a file, or to stdout if it has no name.
func write(out string, stdout io.Writer, r *plot.Record, draw drawer) error {
	if out == "" {
		return draw(stdout, r)
	}
	var b bytes.Buffer
	if err := draw(&b, r); err != nil {
		return err
	}
	return os.WriteFile(out, b.Bytes(), 0o644)
}

// printRecord writes a migration for a person; of one without a report, what is
// known so far.
func printRecord(w io.Writer, r *plot.Record) error {
	if r.Report != nil {
		return printReport(w, r.Report)
	}
	table := newRows(w)
	table.add("migration", "%s of %s: %s", r.ID[:min(8, len(r.ID))], r.VM, r.Outcome())
	if text := r.Failure(); text != "" {
		table.add("error", "%s", text)
	}
	if waits := r.Waits(); waits != nil {
		table.waits(waits)
	}
	return table.t.Flush()
}

// plotMigration is migrate-status --plot: the picture of the VM's last migration,
// or of what there is of one that goes on.
func plotMigration(ctx context.Context, c *client.Client, out string) error {
	if ext := filepath.Ext(out); ext != ".svg" && ext != ".html" {
		return usagef("--plot %s: has to end in .svg or .html", out)
	}
	draw, err := drawing("", out)
	if err != nil {
		return err
	}
	var events plot.Events
	var bad error
	err = c.MigrationLog(ctx, func(e json.RawMessage) {
		if err := events.Add(e); err != nil && bad == nil {
			bad = err
		}
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return err
	}
	r, err := events.Record()
	if err != nil {
		return err
	}
	return write(out, nil, r, draw)
}
