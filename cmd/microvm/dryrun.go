package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"microvm/migration"
	"microvm/vmm/client"
)

// dryRunReport is what --dry-run --report json prints.
type dryRunReport struct {
	VM          string              `json:"vm"`
	Destination string              `json:"destination"`
	Program     string              `json:"program"` // the destination's version, "" if it did not answer
	Refused     bool                `json:"refused"` // the migration would be
	Findings    []migration.Finding `json:"findings"`
}

// dryRun is the command with --dry-run.
func (m *migrateRun) dryRun(ctx context.Context, flags *pflag.FlagSet, name string) error {
	for _, flag := range []string{"detach", "events", "progress"} {
		if flags.Changed(flag) {
			return usagef("--dry-run and --%s exclude each other: nothing happens that could be told of", flag)
		}
	}
	if len(m.req.Passed) > 0 {
		return usagef("--dry-run and %s exclude each other: sockets that were passed are good for one migration; give an address that can be dialled", m.req.Destination)
	}
	c, err := client.Dial(name)
	if err != nil {
		return err
	}
	found, err := c.CheckMigration(ctx, m.req)
	if err != nil {
		return err
	}
	sayPrograms(&found)
	r := dryRunReport{VM: name, Destination: m.req.Destination, Program: found.Program, Refused: len(found.Stops()) > 0, Findings: found.Findings}
	if m.report == "json" {
		err = printJSON(m.stdout, r)
	} else {
		err = m.printDryRun(r)
	}
	if err == nil && r.Refused {
		err = &exitError{status: exitRefused}
	}
	return err
}

func (m *migrateRun) printDryRun(r dryRunReport) (err error) {
	print := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(m.stdout, format, args...)
		}
	}
	if !r.Refused {
		print("nothing known would stop it\n")
	}
	for _, f := range r.Findings {
		switch f.Status {
		case migration.FindingMissing:
			print("%s: %s\n", f.What, f.Text)
		case migration.FindingWarning:
			print("warning, %s: %s\n", f.What, f.Text)
		}
	}
	return err
}
