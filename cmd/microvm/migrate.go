package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"microvm/migration"
	"microvm/vmm"
)

// Exit statuses of a migration that did not complete.
const (
	exitRefused = 4
	exitStays   = 5
	exitPaused  = 6
)

var migrateCommand = command{
	name:    "migrate",
	summary: "Move a running VM to another host",
	usage:   "migrate VM DEST --postcopy [--verify] [--timeout D] [--recover D] [--detach] [--progress auto|plain|json|none] [--report text|json]",
	about: `
DEST is the address that microvm receive printed on the other host. With
--postcopy the guest runs there at once, and the pages that it touches are
fetched from here while the rest follows; this end must stay up until all of
them are there.

Ctrl-C cancels while the guest still runs here. After that it only leaves the
migration to itself; microvm migrate-status VM shows how it goes.

If the connection breaks while the guest runs there and pages of it are here,
the guest goes on with the pages it has, and this side connects again by itself.

Exit status: 0 the VM is at the destination; 4 refused before anything moved;
5 failed or cancelled, and the VM runs on here; 6 paused: the connection
broke after the guest began to run there, and not to be had again within
--recover; 124 not within --timeout,
and the VM runs on here.`,
	examples: []string{
		"microvm migrate a tcp:192.0.2.7:4444 --postcopy",
		"microvm migrate a unix:/tmp/in.sock --postcopy --verify --report json",
	},
	prepare: func(flags *pflag.FlagSet) runner {
		var m migrateRun
		var postcopy, detach bool
		flags.BoolVar(&postcopy, "postcopy", false, "run the guest at the destination first, move its memory after")
		flags.BoolVar(&m.req.Verify, "verify", false, "compare a checksum of every page on both sides")
		flags.DurationVar(&m.req.Timeout, "timeout", 0, "give up if the guest does not run at the destination by then (default never)")
		flags.DurationVar(&m.req.Recover, "recover", defaultRecover, "for how long to connect again if the connection breaks after that")
		flags.BoolVar(&detach, "detach", false, "return once the migration has begun")
		flags.StringVar(&m.progress, "progress", "auto", "on stderr: auto, plain, json or none")
		flags.StringVar(&m.report, "report", "text", "on stdout: text or json")
		return func(ctx context.Context, args []string, stdout io.Writer) error {
			if len(args) != 2 {
				return usagef("give the name of one VM and the address of the destination")
			}
			if !postcopy {
				return usagef("say --postcopy: it is the one way of moving a VM so far")
			}
			if _, err := migration.ParseAddress(args[1]); err != nil {
				return usagef("%v", err)
			}
			if m.report != "text" && m.report != "json" {
				return usagef("--report %s: has to be text or json", m.report)
			}
			show, err := newProgress(m.progress, os.Stderr)
			if err != nil {
				return err
			}
			m.show, m.stdout = show, stdout
			m.req.Destination, m.req.Detach = args[1], detach
			return m.run(ctx, args[0])
		}
	},
}

// defaultRecover is for how long each side waits for the other to be reachable
// again while the guest's memory is on both.
const defaultRecover = 5 * time.Minute

// migrateRun is one run of the command.
type migrateRun struct {
	req      vmm.MigrateRequest
	progress string
	report   string
	show     progress
	stdout   io.Writer
}

func (m *migrateRun) run(ctx context.Context, name string) error {
	c, err := vmm.Dial(name)
	if err != nil {
		return err
	}
	// The VM's process has its own idea of where it is.
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	defer m.onInterrupt(ctx, c, leave)()
	last, err := c.Migrate(ctx, m.req, m.show.update)
	m.show.end()
	switch {
	case m.req.Detach && err == nil:
		return nil
	case ctx.Err() != nil:
		fmt.Fprintf(os.Stderr, "microvm migrate: left; the migration goes on: microvm migrate-status %s\n", name)
		return nil
	case err != nil:
		return notBegun(err)
	}
	if err := m.print(last.Report); err != nil {
		return err
	}
	return migrationExit(last)
}

// notBegun gives a migration that the VM's state does not allow the exit status
// of one that is refused.
func notBegun(err error) error {
	var api *vmm.APIError
	if errors.As(err, &api) && api.Code == vmm.CodeWrongState {
		return &exitError{status: exitRefused, err: err}
	}
	return err
}

// onInterrupt has the first SIGINT or SIGTERM cancel the migration, or leave
// it to itself once it cannot be cancelled. What it returns stops that.
func (m *migrateRun) onInterrupt(ctx context.Context, c *vmm.Client, leave func()) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	go func() {
		select {
		case <-signals:
			if err := c.CancelMigration(ctx); err != nil {
				leave()
			}
		case <-ctx.Done():
		}
	}()
	return func() { signal.Stop(signals) }
}

func (m *migrateRun) print(r *migration.Report) error {
	if m.report == "json" {
		return json.NewEncoder(m.stdout).Encode(r)
	}
	return printReport(m.stdout, r)
}

// migrationExit gives the exit status of a migration that has ended.
func migrationExit(e vmm.MigrationEvent) error {
	if e.Error == nil {
		if e.Report != nil && e.Report.Verified != nil && !*e.Report.Verified {
			return errors.New(e.Report.Error)
		}
		return nil
	}
	status := map[string]int{
		vmm.CodeRefused:   exitRefused,
		vmm.CodeFailed:    exitStays,
		vmm.CodeCancelled: exitStays,
		vmm.CodePaused:    exitPaused,
		vmm.CodeTimeout:   exitTimeout,
	}[e.Error.Code]
	if status == 0 {
		status = exitFailure
	}
	return &exitError{status: status, err: e.Error}
}

// progress shows how a migration goes.
type progress interface {
	update(migration.Status)
	end()
}

func newProgress(mode string, w *os.File) (progress, error) {
	switch mode {
	case "auto":
		if term.IsTerminal(int(w.Fd())) {
			return &liveProgress{w: w}, nil
		}
		return noProgress{}, nil
	case "plain":
		return &plainProgress{w: w}, nil
	case "json":
		return &jsonProgress{out: json.NewEncoder(w)}, nil
	case "none":
		return noProgress{}, nil
	}
	return nil, usagef("--progress %s: has to be auto, plain, json or none", mode)
}

type noProgress struct{}

func (noProgress) update(migration.Status) {}
func (noProgress) end()                    {}

// jsonProgress writes each status as a line of JSON.
type jsonProgress struct{ out *json.Encoder }

// Whether anybody reads the progress is no concern of the migration.
func (p *jsonProgress) update(s migration.Status) { _ = p.out.Encode(s) }
func (p *jsonProgress) end()                      {}

// plainProgress writes each status as a line of text.
type plainProgress struct {
	w    io.Writer
	rate rate
}

func (p *plainProgress) update(s migration.Status) { fmt.Fprintln(p.w, p.rate.line(s)) }
func (p *plainProgress) end()                      {}

// liveProgress keeps one line of a terminal up to date.
type liveProgress struct {
	w    io.Writer
	rate rate
}

func (p *liveProgress) update(s migration.Status) {
	fmt.Fprintf(p.w, "\r\x1b[K%s", p.rate.line(s))
}

func (p *liveProgress) end() { fmt.Fprint(p.w, "\r\x1b[K") }

// rate works out how fast things go from one status to the next.
type rate struct{ last migration.Status }

func (r *rate) line(s migration.Status) string {
	elapsed := time.Duration(s.ElapsedNS - r.last.ElapsedNS)
	line := fmt.Sprintf("%-16s %8s left", s.Phase, bytesText(s.PagesLeft*pageSize))
	if r.last.ElapsedNS > 0 && elapsed > 0 {
		perSecond := func(now, before uint64) float64 { return float64(now-min(before, now)) / elapsed.Seconds() }
		speed := perSecond(s.BytesWire, r.last.BytesWire)
		line += fmt.Sprintf("  %8s/s  %5.0f faults/s", bytesText(uint64(speed)), perSecond(s.Faults, r.last.Faults))
		if speed > 0 {
			left := time.Duration(float64(s.PagesLeft*pageSize) / speed * float64(time.Second))
			line += fmt.Sprintf("  %v to go", left.Round(100*time.Millisecond))
		}
	}
	if s.P99NS > 0 {
		line += fmt.Sprintf("  p99 fault %v", roundTo3(time.Duration(s.P99NS)))
	}
	r.last = s
	return line
}
