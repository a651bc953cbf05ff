package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"microvm/migration"
	"microvm/vmm"
	"microvm/vmm/doctor"
)

var doctorCommand = command{
	name:    "doctor",
	summary: "Say what this host lacks, or what would stop a migration",
	usage:   "doctor [--tls-dir DIR] [--format text|json]; doctor --peer DEST [--memory SIZE] [--hugepages] [--tls-dir DIR] [--tls-hostname NAME] [--format text|json]",
	about: `
Without --peer: what this host has for running and moving VMs, what it lacks for
what, and the remedy. Each check tries the real thing, as run, receive and migrate
do: it boots the tiny kernel, has userfaultfd put pages in place, makes a tap
device that goes away again. It changes no setting. A check that is missing is for
something that does not work then; warning: it works, and could be better.

With --peer: asks the microvm receive at DEST what would stop a VM that runs here
from moving there: reachability, version, TLS, CPU features by name, memory and
its pages. It asks of a VM of so much memory as this host would start it; nothing
moves, and the receive waits on. Of a VM that there is, with its disks and network
cards: microvm migrate VM DEST --dry-run.

Exit status: 0 a VM can be booted and moved, here or to DEST; 1 it cannot here;
4 it cannot to DEST.`,
	examples: []string{
		"microvm doctor",
		"microvm doctor --tls-dir /etc/microvm/tls --format json",
		"microvm doctor --peer tcp:192.0.2.7:4444",
		"microvm doctor --peer tcp:192.0.2.7:4444 --memory 16G --tls-dir /etc/microvm/tls",
	},
	prepare: func(flags *pflag.FlagSet) runner {
		var d doctorRun
		d.memory = defaultMemory
		flags.StringVar(&d.peer, "peer", "", "the `address` of a microvm receive: what would stop a migration there")
		flags.VarP(&d.memory, "memory", "m", "with --peer: how much memory the VM has, in bytes, or with K, M, G")
		flags.BoolVar(&d.hugepages, "hugepages", false, "with --peer: it has 2 MiB pages")
		flags.StringVar(&d.tlsDir, "tls-dir", "", "`folder` with the files of TLS (docs/tls.md) (default none)")
		flags.StringVar(&d.tlsHostname, "tls-hostname", "", "with --peer: the name in the destination's certificate (default the host in DEST)")
		format := flags.String("format", "text", "text or json")
		return func(ctx context.Context, args []string, stdout io.Writer) error {
			if err := noArguments(args); err != nil {
				return err
			}
			if err := checkFormat(*format, "text"); err != nil {
				return err
			}
			report, err := d.look(ctx, flags)
			if err != nil {
				return err
			}
			if *format == "json" {
				err = printJSON(stdout, report)
			} else {
				err = report.print(stdout)
			}
			if err == nil && !report.OK {
				err = &exitError{status: report.status()}
			}
			return err
		}
	},
}

// doctorRun is one run of the command.
type doctorRun struct {
	peer                string
	memory              size
	hugepages           bool
	tlsDir, tlsHostname string
}

// doctorReport is what --format json prints.
type doctorReport struct {
	OK      bool           `json:"ok"`                // a VM can be booted and moved, or moved to Peer
	Peer    string         `json:"peer,omitempty"`    // of whom it is; empty is this host
	Program string         `json:"program,omitempty"` // the peer's version
	Checks  []doctor.Check `json:"checks"`
}

func (d *doctorRun) look(ctx context.Context, flags *pflag.FlagSet) (doctorReport, error) {
	if d.peer != "" {
		return d.lookAtPeer(ctx)
	}
	for _, name := range []string{"memory", "hugepages", "tls-hostname"} {
		if flags.Changed(name) {
			return doctorReport{}, usagef("--%s goes with --peer only", name)
		}
	}
	checks := doctor.Host(ctx, doctor.Options{TLSDir: d.tlsDir})
	return doctorReport{OK: doctor.Fit(checks), Checks: checks}, nil
}

// lookAtPeer asks a destination.
func (d *doctorRun) lookAtPeer(ctx context.Context) (doctorReport, error) {
	dest, err := migration.ParseAddress(d.peer)
	if err != nil {
		return doctorReport{}, usagef("--peer: %v", err)
	}
	opt := migration.Options{VM: "doctor"}
	switch {
	case d.tlsDir == "" && d.tlsHostname != "":
		return doctorReport{}, usagef("--tls-hostname is for TLS: say --tls-dir as well")
	case d.tlsDir != "":
		if err := dest.CheckSourceTLS(); err != nil {
			return doctorReport{}, usagef("--tls-dir: %v", err)
		}
		if opt.TLS, err = migration.SourceTLS(d.tlsDir, d.tlsHostname, slog.Default()); err != nil {
			return doctorReport{}, &exitError{status: exitRefused, err: err}
		}
	}
	c := vmm.Config{Name: fmt.Sprintf("doctor-%d", os.Getpid()), CPUs: 1, Memory: uint64(d.memory), Hugepages: d.hugepages}
	if err := c.Validate(); err != nil {
		return doctorReport{}, usagef("%v", err)
	}
	sample, err := vmm.NewSample(ctx, c)
	if err != nil {
		return doctorReport{}, fmt.Errorf("a VM of this host, to ask about: %w", err)
	}
	defer sample.Close()
	found, err := sample.Check(ctx, dest, opt)
	if err != nil {
		return doctorReport{}, err
	}
	sayPrograms(&found)
	return doctorReport{OK: len(found.Stops()) == 0, Peer: dest.String(), Program: found.Program, Checks: doctor.Of(found)}, nil
}

// sayPrograms adds to what was found whether both sides are of one version.
func sayPrograms(found *migration.Outlook) {
	if here := readVersion().text(); found.Program != "" && found.Program != here {
		found.Findings = append(found.Findings, migration.Finding{
			What: "program", Status: migration.FindingWarning,
			Text: fmt.Sprintf("microvm is %s there, and %s here; run the same version on both hosts", found.Program, here),
		})
	}
}

// status is the exit status of a report that is not well.
func (r doctorReport) status() int {
	if r.Peer != "" {
		return exitRefused
	}
	return exitFailure
}

func (r doctorReport) print(out io.Writer) error {
	w, colour := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0), paintFor(out)
	for _, c := range r.Checks {
		fmt.Fprintf(w, "%s\t%s\t%s\n", colour.ofCheck(c.Status)(c.Status), c.Name, c.Found)
		if c.Status == doctor.OK {
			continue
		}
		fmt.Fprintf(w, "%s\t\tfor: %s\n", colour.plain(""), c.For)
		if c.Remedy != "" {
			fmt.Fprintf(w, "%s\t\tremedy: %s\n", colour.plain(""), c.Remedy)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, r.verdict())
	return err
}

// ofCheck is the colour of a check's status.
func (p paint) ofCheck(status string) func(string) string {
	switch status {
	case doctor.OK:
		return p.good
	case doctor.Missing:
		return p.bad
	}
	return p.doubt
}

// verdict is the last line.
func (r doctorReport) verdict() string {
	var missing []string
	for _, c := range r.Checks {
		if c.Status == doctor.Missing {
			missing = append(missing, c.Name)
		}
	}
	names := strings.Join(missing, ", ")
	switch {
	case r.Peer != "" && r.OK:
		return "nothing known would stop a migration to " + r.Peer
	case r.Peer != "":
		return fmt.Sprintf("a migration to %s would be refused: %s", r.Peer, names)
	case !r.OK:
		return "a VM cannot be booted and moved on this host: missing are " + names
	case names != "":
		return "a VM can be booted and moved on this host; missing are " + names
	}
	return "a VM can be booted and moved on this host"
}
