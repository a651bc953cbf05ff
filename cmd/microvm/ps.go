package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"microvm/vmm"
	"microvm/vmm/client"
)

// askTime bounds how long a command waits for a VM's process to answer a
// simple question.
const askTime = 5 * time.Second

var psCommand = command{
	name:    "ps",
	summary: "List VMs",
	usage:   "ps [-a] [-q] [--clean] [--format table|json]",
	about: `
With -a also those that have ended and left a log (run --detach), and how; and
those that are dead: their process was killed, or crashed, and could not clean up
after itself. --clean removes what both left, which is nothing but files, and lists
whose it was. The name of such a VM is free in any case: the next one of that name
begins with cleaning up.`,
	examples: []string{
		"microvm ps",
		"microvm ps -a --format json",
		"microvm ps --clean",
	},
	prepare: func(flags *pflag.FlagSet) runner {
		all := flags.BoolP("all", "a", false, "also those that have ended and left a log, and those that are dead")
		clean := flags.Bool("clean", false, "remove what VMs left that have ended or are dead, and list those")
		quiet := flags.BoolP("quiet", "q", false, "names only")
		format := flags.String("format", "table", "table or json")
		return func(ctx context.Context, args []string, stdout io.Writer) error {
			if err := noArguments(args); err != nil {
				return err
			}
			if err := checkFormat(*format, "table"); err != nil {
				return err
			}
			list := listVMs
			if *clean {
				list = cleanVMs
			}
			rows, err := list(ctx, *all)
			if err != nil {
				return err
			}
			switch {
			case *quiet:
				for _, r := range rows {
					fmt.Fprintln(stdout, r.Name)
				}
				return nil
			case *format == "json":
				return printJSON(stdout, rows)
			}
			return printTable(stdout, rows)
		}
	},
}

// noAnswer is the state of a VM that does not tell.
const noAnswer = "no answer"

// A psRow is one VM in the list.
type psRow struct {
	Name   string          `json:"name"`
	State  string          `json:"state"`
	PID    int             `json:"pid,omitempty"`
	CPUs   int             `json:"cpus,omitempty"`
	Memory uint64          `json:"memory,omitempty"`
	Exit   *vmm.ExitStatus `json:"exit,omitempty"`
}

// listVMs asks every VM that runs, and reads what the others left.
func listVMs(ctx context.Context, all bool) ([]psRow, error) {
	instances, err := vmm.Instances()
	if err != nil {
		return nil, err
	}
	rows := []psRow{}
	for _, i := range instances {
		if !i.Running {
			if all {
				rows = append(rows, ended(i))
			}
			continue
		}
		rows = append(rows, ask(ctx, i))
	}
	return rows, nil
}

// cleanVMs removes what VMs left that do not run any more, and lists them.
func cleanVMs(context.Context, bool) ([]psRow, error) {
	instances, err := vmm.Instances()
	if err != nil {
		return nil, err
	}
	rows := []psRow{}
	for _, i := range instances {
		if i.Running {
			continue
		}
		err := i.Clean()
		switch {
		case errors.Is(err, vmm.ErrNameTaken): // it is used again
		case err != nil:
			return nil, err
		default:
			rows = append(rows, ended(i))
		}
	}
	return rows, nil
}

// stateDead is the state of a VM whose process could not say how it ended.
const stateDead = "dead"

func ended(i vmm.Instance) psRow {
	if i.Dead {
		return psRow{Name: i.Name, State: stateDead}
	}
	return psRow{Name: i.Name, State: vmm.StateStopped.String(), Exit: i.Exit}
}

// ask describes a VM that runs. One that is about to begin or to end may not
// answer; it is listed all the same.
func ask(ctx context.Context, i vmm.Instance) psRow {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	row := psRow{Name: i.Name, PID: i.PID, State: noAnswer}
	if info, err := client.New(i).Info(ctx); err == nil {
		row.State, row.CPUs, row.Memory = info.State.String(), info.CPUs, info.Memory
		if info.Migrating {
			row.State += " (migrating)"
		}
	}
	return row
}

func printTable(w io.Writer, rows []psRow) error {
	t, colour := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0), paintFor(w)
	fmt.Fprintf(t, "NAME\t%s\tPID\tCPUS\tMEMORY\n", colour.plain("STATE"))
	for _, r := range rows {
		state := r.State
		switch {
		case r.State == stateDead:
			state = fmt.Sprintf("%s (%s)", r.State, vmm.WhyDead)
		case r.Exit != nil:
			state = fmt.Sprintf("%s (%d: %s)", r.State, r.Exit.Code, r.Exit.Reason)
		}
		state = colour.ofState(r)(state)
		if r.PID == 0 {
			fmt.Fprintf(t, "%s\t%s\t-\t-\t-\n", r.Name, state)
			continue
		}
		memory := size(r.Memory)
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%v\n", r.Name, state, r.PID, r.CPUs, &memory)
	}
	return t.Flush()
}

// printJSON writes one JSON value, indented.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// ofState is how the state of a VM is coloured.
func (p paint) ofState(r psRow) func(string) string {
	switch {
	case r.Exit != nil && r.Exit.Code != vmm.ExitDone, r.State == noAnswer:
		return p.bad
	case r.State == vmm.StateRunning.String():
		return p.good
	case r.PID != 0:
		return p.doubt
	}
	return p.plain
}
