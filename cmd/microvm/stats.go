package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"microvm/vmm"
	"microvm/vmm/client"
)

// statsEvery is how often --watch asks.
const statsEvery = time.Second

var statsCommand = command{
	name:    "stats",
	summary: "Show what the devices and vCPUs of a VM have done",
	usage:   "stats VM [--watch] [--format text|json|prom]",
	about: `
Counts since the VM came to this host: for each virtio device its requests by
their sort, the bytes that they carried, those that failed and how long they
took, and for each of its queues the driver's notifications (kicks), the chains
of buffers that it made available, and the interrupts; for each vCPU its exits
to this program. Times are upper bounds, each a power of two.

--watch shows them again each second, with what was done in that second (/S), in
place on a terminal, an object a line with --format json. It ends with status 0
when the VM ends, and by Ctrl-C.

--format prom is Prometheus' text format, of the migrations of the VM too; microvm
metrics has it of all VMs.`,
	examples: []string{"microvm stats a", "microvm stats a --watch", "microvm stats a --format json"},
	prepare: func(flags *pflag.FlagSet) runner {
		watch := flags.Bool("watch", false, "each second until the VM ends")
		format := flags.String("format", "text", "text, json or prom")
		return func(ctx context.Context, args []string, stdout io.Writer) error {
			name, err := oneVM(args)
			if err != nil {
				return err
			}
			if *format == "prom" && *watch {
				return usagef("--format prom and --watch exclude each other: Prometheus asks as often as it likes (microvm help metrics)")
			}
			if *format != "text" && *format != "json" && *format != "prom" {
				return usagef("--format %s: has to be text, json or prom", *format)
			}
			c, err := client.Dial(name)
			if err != nil {
				return err
			}
			if *watch {
				return watchStats(ctx, c, *format, stdout)
			}
			if *format == "prom" {
				return writeMetrics(ctx, c, stdout)
			}
			s, err := askStats(ctx, c)
			if err != nil {
				return err
			}
			if *format == "json" {
				return printJSON(stdout, s)
			}
			return printStats(stdout, s, nil)
		}
	},
}

// writeMetrics writes what the VM shows to Prometheus.
func writeMetrics(ctx context.Context, c *client.Client, stdout io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	text, err := c.Metrics(ctx)
	if err != nil {
		return err
	}
	_, err = stdout.Write(text)
	return err
}

func askStats(ctx context.Context, c *client.Client) (vmm.Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return c.Stats(ctx)
}

// watchStats shows a VM's counts until it has ended.
func watchStats(ctx context.Context, c *client.Client, format string, stdout io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	var live *inPlace
	if f, ok := stdout.(*os.File); ok && format == "text" && term.IsTerminal(int(f.Fd())) {
		live = &inPlace{terminal: f}
		defer live.end()
	}
	tick := time.NewTicker(statsEvery)
	defer tick.Stop()
	var last *vmm.Stats
	for {
		s, err := askStats(ctx, c)
		if err != nil {
			if ctx.Err() != nil {
				return nil // that is how a person ends it
			}
			i, gone := vmm.FindInstance(c.Instance.Name)
			if last != nil && (errors.Is(gone, vmm.ErrNoSuchVM) || gone == nil && !i.Running) {
				return nil
			}
			return err
		}
		if format == "json" {
			err = json.NewEncoder(stdout).Encode(s)
		} else {
			var text strings.Builder
			if live == nil && last != nil {
				text.WriteString("\n")
			}
			err = printStats(&text, s, last)
			switch {
			case err != nil:
			case live != nil:
				err = live.show(text.String())
			default:
				_, err = io.WriteString(stdout, text.String())
			}
		}
		if err != nil {
			return err
		}
		last = &s
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
