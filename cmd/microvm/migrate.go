package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"microvm/migration"
	"microvm/vmm"
	"microvm/vmm/client"
)

// Exit statuses of a migration that did not complete.
const (
	exitRefused = vmm.ExitRefused
	exitStays   = vmm.ExitStays
	exitPaused  = vmm.ExitPaused
)

var migrateCommand = command{
	name:    "migrate",
	summary: "Move a running VM to another host",
	usage:   "migrate VM DEST --postcopy | --mode postcopy|hybrid|precopy [FLAG...] [--dry-run]; migrate VM [DEST] --resume; migrate VM --take-back --force",
	about: `
DEST is the address that microvm receive printed on the other host; or fd:N,M,
connected sockets that this command is passed as open descriptors, for whoever
may not dial there: one for control and one for pages that the guest waits for,
then as many as --connections says, if it says more than 1. They are made just
before: a destination closes one that says nothing for 2.5 s. When they break
after the guest began to run there, --resume DEST needs an address to dial.

--mode postcopy, or --postcopy for short: the guest runs there at once, and the
pages that it touches are fetched from here while the rest follows. It ends
however much the guest writes; this end must stay up until all pages are there.
--mode hybrid: memory is sent while the guest runs here, pass after pass, and
when another pass would not help the rest goes by postcopy: fewer faults, the
same promise. --mode precopy: all of memory is sent before the guest runs
there; a guest that writes faster than the link never gets that far, unless
--auto-converge slows it down: after each pass that left more than half of what
it sent to be sent again, its vCPUs are kept from running for more of the time,
20 % at first, then 10 more, up to 99. They run at full speed again at the end,
whatever that is. --mode hybrid switches instead of that.

--compress makes less of what is sent, for CPU time on both sides. It is tried
again and again, and done while memory gets away faster with it; the report says
which way was faster. Pages that the guest waits for are sent as they are.
--checksum finds what TCP's own checksum lets through: a run of pages that was
damaged on the way is never used. Once the guest runs there the run is sent again,
on new connections; before that the migration fails, and the guest stays here.

--connections N spreads memory over N connections besides two for control and for
pages that the guest waits for, since one seldom fills a link, and one CPU seldom a
connection: 4 move a guest in two thirds of the time of 1, and it waits less than
half as long (docs/benchmarks.md). All break and are made again together.

--dry-run asks the destination what would stop the migration, all reasons at once:
what the two sides' settings, processors, memory, disks, network cards and names
are. Nothing moves, the VM is not paused, and the destination waits on.

Ctrl-C cancels while the guest still runs here. After that it only leaves the
migration to itself; microvm migrate-status VM shows how it goes.

If the connection breaks while the guest runs there and pages of it are here,
the guest goes on with the pages it has, and this side connects again by itself
for as long as --recover says. Then the migration is paused, with nothing lost:
--resume goes on, at DEST if the same destination is to be reached there now.
While this side still tries, --resume has it try at once, and at DEST.

If it breaks in the very moment in which the VM is given away, nobody here knows
whether it runs there: this side waits for the destination to say so, and never
runs the VM by itself. If the destination has ended without having run it,
--take-back --force has the VM run on here: --force says that you have made sure
that the destination does not run it and never will. A VM that is known to have
run there is not taken back.

Exit status: 0 the VM is at the destination, or --dry-run knows of nothing that
would stop it; 4 refused before anything moved, or --dry-run says that it would be;
5 failed or cancelled, and the VM runs on here; 6 paused: the connection
broke after the guest began to run there, and was not to be had again within
--recover; 124 not within --timeout, and the VM runs on here.`,
	examples: []string{
		"microvm migrate a tcp:192.0.2.7:4444 --postcopy",
		"microvm migrate a unix:/tmp/in.sock --postcopy --verify --report json",
		"microvm migrate a tcp:192.0.2.7:4444 --postcopy --tls-dir /etc/microvm/tls",
		"microvm migrate a tcp:192.0.2.7:4444 --mode hybrid --bandwidth 1G",
		"microvm migrate a tcp:192.0.2.7:4444 --mode precopy --auto-converge --timeout 10m",
		"microvm migrate a tcp:192.0.2.7:4444 --mode hybrid --compress zstd --checksum",
		"microvm migrate a tcp:192.0.2.7:4444 --mode precopy --timeout 60s --on-timeout postcopy",
		"microvm migrate a tcp:192.0.2.7:4444 --postcopy --dry-run",
		"microvm migrate a tcp:198.51.100.7:4444 --resume",
		"microvm migrate a fd:3,4 --postcopy 3<>/dev/tcp/192.0.2.7/4444 4<>/dev/tcp/192.0.2.7/4444",
	},
	prepare: func(flags *pflag.FlagSet) runner {
		var m migrateRun
		var postcopy, resume, back, force, dry bool
		var onTimeout string
		var bandwidth, push size
		flags.BoolVar(&postcopy, "postcopy", false, "the same as --mode postcopy")
		flags.StringVar(&m.req.Mode, "mode", "", "postcopy, hybrid or precopy")
		flags.IntVar(&m.req.Rounds, "precopy-rounds", 0, "passes over memory while the guest runs here, at most (default as many as help)")
		flags.BoolVar(&m.req.AutoConverge, "auto-converge", false, "with --mode precopy: slow the guest down, in steps, while passes do not win")
		flags.DurationVar(&m.req.Downtime, "downtime", 300*time.Millisecond, "what precopy aims at")
		flags.BoolVar(&m.req.Verify, "verify", false, "compare a checksum of every page on both sides")
		flags.DurationVar(&m.req.Timeout, "timeout", 0, "give up if the guest does not run at the destination by then (default never)")
		flags.StringVar(&onTimeout, "on-timeout", "cancel", "then, while memory is sent: cancel, or go on by postcopy")
		flags.Var(&bandwidth, "bandwidth", "bytes a second, or with K, M, G, while the guest runs here (default no limit)")
		flags.Var(&push, "postcopy-bandwidth", "likewise once it runs there, but for pages that it waits for (default no limit)")
		flags.IntVar(&m.req.Connections, "connections", defaultConnections, fmt.Sprintf("over how many connections to spread memory, at most %d, with fd: 1 unless told; limits of bandwidth are for all together", migration.MaxConnections))
		flags.StringVar(&m.req.Compress, "compress", string(migration.CodecNone), "pages, while that gets them away faster: none, s2 (fast) or zstd (small)")
		flags.BoolVar(&m.req.Checksum, "checksum", false, "have each run of pages checked as it arrives, and sent again if it is damaged")
		flags.DurationVar(&m.req.Recover, "recover", defaultRecover, "for how long to connect again if the connection breaks after that")
		flags.StringVar(&m.req.TLSDir, "tls-dir", "", "`folder` with ca-cert.pem, client-cert.pem and client-key.pem: TLS on every connection (default none)")
		flags.StringVar(&m.req.TLSHostname, "tls-hostname", "", "the name in the destination's certificate (default the host in DEST)")
		flags.BoolVar(&resume, "resume", false, "take up a migration that is paused")
		flags.BoolVar(&back, "take-back", false, "have a VM here again that was given away to a destination that never ran it")
		flags.BoolVar(&force, "force", false, "with --take-back: I have made sure that the destination does not run the VM and never will")
		flags.BoolVar(&dry, "dry-run", false, "say what would stop the migration, and move nothing")
		flags.StringVar(&m.events, "events", "", "write what happens, a JSON object a line, to a `FILE` or - (docs/events.md)")
		flags.BoolVar(&m.detach, "detach", false, "return once the migration has begun")
		flags.StringVar(&m.progress, "progress", "auto", "on stderr: auto, plain, json or none")
		flags.StringVar(&m.report, "report", "text", "on stdout: text or json")
		return func(ctx context.Context, args []string, stdout io.Writer) error {
			if back {
				return takeBack(ctx, flags, args, force)
			}
			if force {
				return usagef("--force goes with --take-back only")
			}
			if m.report != "text" && m.report != "json" {
				return usagef("--report %s: has to be text or json", m.report)
			}
			if m.events != "" && m.detach {
				return usagef("--events and --detach exclude each other: use microvm migrate-status VM --events")
			}
			if m.events == "-" && flags.Changed("report") {
				return usagef("--events - and --report exclude each other: the last event has the report")
			}
			show, err := newProgress(m.progress, os.Stderr)
			if err != nil {
				return err
			}
			m.show, m.stdout = show, stdout
			if resume {
				return m.takeUp(ctx, flags, args)
			}
			if len(args) != 2 {
				return usagef("give the name of one VM and the address of the destination")
			}
			switch migration.Mode(m.req.Mode) {
			case migration.ModePostcopy, migration.ModeHybrid, migration.ModePrecopy:
				if postcopy && m.req.Mode != string(migration.ModePostcopy) {
					return usagef("--postcopy and --mode %s exclude each other", m.req.Mode)
				}
			case "":
				if !postcopy {
					return usagef("say how: --postcopy, --mode hybrid or --mode precopy")
				}
			default:
				return usagef("--mode %s: has to be postcopy, hybrid or precopy", m.req.Mode)
			}
			if m.req.AutoConverge && m.req.Mode != string(migration.ModePrecopy) {
				return usagef("--auto-converge goes with --mode precopy only: the others end without slowing the guest down")
			}
			if onTimeout != "cancel" && onTimeout != "postcopy" {
				return usagef("--on-timeout %s: has to be cancel or postcopy", onTimeout)
			}
			if m.req.Rounds < 0 || m.req.Downtime < 0 || m.req.Timeout < 0 || m.req.Recover < 0 {
				return usagef("--precopy-rounds, --downtime, --timeout and --recover cannot be negative")
			}
			if n := m.req.Connections; n < 1 || n > migration.MaxConnections {
				return usagef("--connections %d: has to be 1 to %d", n, migration.MaxConnections)
			}
			m.req.TimeoutSwitches = onTimeout == "postcopy" && m.req.Mode != "" && m.req.Mode != string(migration.ModePostcopy)
			m.req.Bandwidth, m.req.PushBandwidth = uint64(bandwidth), uint64(push)
			if _, err := migration.ParseCodec(m.req.Compress); err != nil {
				return usagef("--compress: %v", err)
			}
			dest, err := migration.ParseDestination(args[1])
			if err == nil {
				if dest.Passed() > 0 && !flags.Changed("connections") {
					m.req.Connections = 1
				}
				err = dest.CheckPassed(m.req.Connections)
			}
			if err != nil {
				return usagef("%v", err)
			}
			if err := m.useTLS(dest); err != nil {
				return err
			}
			if m.req.Passed, err = dest.OpenPassed(); err != nil {
				return err
			}
			m.req.Destination, m.req.Detach, m.req.Log = args[1], m.detach, m.events != ""
			if dry {
				return m.dryRun(ctx, flags, args[0])
			}
			return m.run(ctx, args[0])
		}
	},
}

// defaultConnections is over how many memory is spread unless --connections says
// so: what a host of two CPUs gains by.
const defaultConnections = 4

// defaultRecover is for how long each side waits for the other to be reachable
// again while the guest's memory is on both.
const defaultRecover = 5 * time.Minute

// migrateRun is one run of the command.
type migrateRun struct {
	req      vmm.MigrateRequest
	detach   bool
	progress string
	report   string
	events   string
	show     progress
	stdout   io.Writer
}

// ofResume are the flags that --resume goes with: how memory moves was said when
// the migration began.
var ofResume = []string{"resume", "recover", "detach", "progress", "report", "events"}

// otherThan names a flag that was given and is none of these, "" without one.
func otherThan(flags *pflag.FlagSet, these []string) (other string) {
	flags.Visit(func(f *pflag.Flag) {
		if !slices.Contains(these, f.Name) {
			other = f.Name
		}
	})
	return other
}

// takeUp is the command with --resume.
func (m *migrateRun) takeUp(ctx context.Context, flags *pflag.FlagSet, args []string) error {
	other := otherThan(flags, ofResume)
	switch {
	case other != "":
		return usagef("--resume and --%s exclude each other: the migration goes on as it began", other)
	case len(args) != 1 && len(args) != 2:
		return usagef("give the name of one VM, and the address of the destination if it has changed")
	case m.req.Recover <= 0:
		return usagef("--recover has to be more than 0 with --resume")
	}
	req := vmm.ResumeMigrationRequest{Recover: m.req.Recover, Log: m.events != "", Detach: m.detach}
	if len(args) == 2 {
		if _, err := migration.ParseAddress(args[1]); err != nil {
			return usagef("%v", err)
		}
		req.Destination = args[1]
	}
	return m.follow(ctx, args[0], func(ctx context.Context, c *client.Client) (vmm.MigrationEvent, error) {
		return c.ResumeMigration(ctx, req, m.show.update)
	})
}

// useTLS checks the flags for TLS, if they are there.
func (m *migrateRun) useTLS(dest migration.Address) (err error) {
	if m.req.TLSDir == "" {
		if m.req.TLSHostname != "" {
			return usagef("--tls-hostname is for TLS: say --tls-dir as well")
		}
		return nil
	}
	if err := dest.CheckSourceTLS(); err != nil {
		return usagef("--tls-dir: %v", err)
	}
	// It is the VM's process that reads the files, and may be elsewhere.
	m.req.TLSDir, err = filepath.Abs(m.req.TLSDir)
	return err
}

// run is the command without --resume.
func (m *migrateRun) run(ctx context.Context, name string) error {
	return m.follow(ctx, name, func(ctx context.Context, c *client.Client) (vmm.MigrationEvent, error) {
		return c.Migrate(ctx, m.req, m.show.update)
	})
}

// follow has the VM's process do its part, and shows how that goes.
func (m *migrateRun) follow(ctx context.Context, name string, ask func(context.Context, *client.Client) (vmm.MigrationEvent, error)) error {
	c, err := client.Dial(name)
	if err != nil {
		return err
	}
	// The VM's process has its own idea of where it is.
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	defer m.onInterrupt(ctx, c, leave)()
	if m.events != "" {
		w, err := openEvents(m.events, m.stdout)
		if err != nil {
			return err
		}
		defer w.close()
		c.OnEvent = w.write
	}
	last, err := ask(ctx, c)
	m.show.end()
	switch {
	case m.detach && err == nil:
		return nil
	case ctx.Err() != nil:
		fmt.Fprintf(os.Stderr, "microvm migrate: left; the migration goes on: microvm migrate-status %s\n", name)
		return nil
	case err != nil:
		return err
	}
	if err := m.print(last.Report); err != nil {
		return err
	}
	if last.Report.Result == migration.ResultPaused {
		fmt.Fprintf(os.Stderr, "microvm migrate: to go on once the destination can be reached: microvm migrate %s [DEST] --resume\n", name)
	}
	return migrationExit(last)
}

// onInterrupt has the first SIGINT or SIGTERM cancel the migration, or leave
// it to itself once it cannot be cancelled. What it returns stops that.
func (m *migrateRun) onInterrupt(ctx context.Context, c *client.Client, leave func()) (stop func()) {
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
	if m.events == "-" {
		return nil
	}
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
	return e.Error
}
