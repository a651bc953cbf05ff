package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/signal"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

var metricsCommand = command{
	name:    "metrics",
	summary: "Show to Prometheus what all VMs have done",
	usage:   "metrics [--listen HOST:PORT]",
	about: `
Prints the metrics of all VMs of this user in Prometheus' text format, each with
the label vm: what they count, and how their migrations go (docs/api.md lists
them). microvm_up is 0 for a VM whose process does not answer within 2 seconds.

--listen answers Prometheus instead, at /metrics, until a signal ends it, and
prints where; PORT may be 0. Whoever reaches that address can read the names of
the VMs and what they do, and nothing else: 127.0.0.1 keeps it on this host.`,
	examples: []string{"microvm metrics", "microvm metrics --listen 127.0.0.1:9180"},
	prepare: func(flags *pflag.FlagSet) runner {
		listen := flags.String("listen", "", "answer Prometheus at this `HOST:PORT`")
		return func(ctx context.Context, args []string, stdout io.Writer) error {
			if err := noArguments(args); err != nil {
				return err
			}
			if *listen == "" {
				return printMetrics(ctx, stdout)
			}
			if _, _, err := net.SplitHostPort(*listen); err != nil {
				return usagef("--listen %s: %v", *listen, err)
			}
			return serveMetrics(ctx, *listen, stdout)
		}
	},
}

// printMetrics writes the metrics of all VMs.
func printMetrics(ctx context.Context, stdout io.Writer) error {
	families, err := gatherer{ctx}.Gather()
	if err != nil {
		return err
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(stdout, f); err != nil {
			return err
		}
	}
	return nil
}

const (
	// maxScrapes is how many are answered at once: each asks every VM.
	maxScrapes = 4
	// scrapeTime bounds what one client may take.
	scrapeTime = 10 * time.Second
)

// serveMetrics answers until ctx ends or a signal comes.
func serveMetrics(ctx context.Context, address string, stdout io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer{ctx}, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes}))
	server := &http.Server{
		Handler: mux, ReadTimeout: scrapeTime, WriteTimeout: scrapeTime, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	fmt.Fprintf(stdout, "http://%s/metrics\n", ln.Addr())
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
