package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// usageStatus is with what status microvm ends when it does not know a flag.
const usageStatus = 2

// flagsOf are the flags of `microvm migrate` for each mode.
var flagsOf = map[string][]string{
	"postcopy": {"--postcopy"},
	"hybrid":   {"--mode", "hybrid"},
	"precopy":  {"--mode", "precopy", "--downtime", downtimeLimit.String()},
}

// oursReport is what is read of the report, in nanoseconds.
type oursReport struct {
	Result    string  `json:"result"`
	Error     string  `json:"error"`
	Total     float64 `json:"total_ns"`
	Postcopy  float64 `json:"postcopy_ns"`
	Downtime  float64 `json:"downtime_ns"`
	Blocktime float64 `json:"blocktime_ns"`
	RAM       struct {
		BytesWire float64 `json:"bytes_wire"`
	} `json:"ram"`
	Faults struct {
		Requested float64 `json:"requested"`
		P50       float64 `json:"p50_ns"`
		P99       float64 `json:"p99_ns"`
	} `json:"faults"`
}

// migrateOurs runs one migration between two processes of microvm whose state is in dir.
func (b *bench) migrateOurs(m migration, dir string) (figures, error) {
	env := []string{"MICROVM_STATE_DIR=" + dir}
	source, err := start(b.context, env, b.microvm, "run", "--name", "a", "-m", fmt.Sprintf("%dM", m.mem),
		"-c", strconv.Itoa(m.cpus), "-p", guestWork(m))
	if err != nil {
		return nil, err
	}
	defer source.end()
	if err := ready(source, m.mem); err != nil {
		return nil, err
	}
	destination, err := start(b.context, env, b.microvm, "receive", "--listen", "tcp:127.0.0.1:0", "--name", "b")
	if err != nil {
		return nil, err
	}
	defer destination.end()
	address, err := firstLine(destination)
	if err != nil {
		return nil, err
	}
	before, err := cpuTime(source, destination)
	if err != nil {
		return nil, err
	}
	how := slices.Clone(flagsOf[m.mode])
	if m.connections > 0 {
		how = append(how, "--connections", strconv.Itoa(m.connections))
	}
	r, err := b.runMigrate(env, address, how)
	if err != nil {
		return nil, err
	}
	after, err := cpuTime(source, destination)
	if err != nil {
		return nil, err
	}
	if err := awaitLife(destination); err != nil {
		return nil, fmt.Errorf("after the migration: %w", err)
	}
	return figures{
		"total": r.Total, "downtime": r.Downtime, "blocktime": r.Blocktime, "requests": r.Faults.Requested,
		"cpu": after - before, "p50": r.Faults.P50, "p99": r.Faults.P99, "wire": r.RAM.BytesWire, "postcopy": r.Postcopy,
	}, nil
}

func (b *bench) runMigrate(env []string, address string, how []string) (r oursReport, err error) {
	args := append([]string{"migrate", "a", address, "--report", "json"}, how...)
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(b.context, b.microvm, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == usageStatus:
		return r, absent("does not know `%s` yet", strings.Join(how, " "))
	case err != nil:
		return r, fmt.Errorf("microvm %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		return r, fmt.Errorf("microvm migrate's report: %w", err)
	}
	if r.Result != "completed" {
		return r, fmt.Errorf("microvm migrate: %s: %s", r.Result, r.Error)
	}
	return r, nil
}
