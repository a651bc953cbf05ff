package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// graceAtEnd is what a run keeps back of the time that is left, so that go test itself ends tests that hang, with their
// goroutines' traces, before the deadline ends go test.
const graceAtEnd = 20 * time.Second

// run runs the pass and adds its results to all.
func (p pass) run(ctx context.Context, all *summary, left time.Duration, verbose bool) {
	if ctx.Err() != nil {
		all.broken = append(all.broken, fmt.Sprintf("pass %s: not run: %v", p.name, context.Cause(ctx)))
		return
	}
	packages, err := p.packages(ctx)
	if err != nil {
		all.broken = append(all.broken, fmt.Sprintf("pass %s: %v", p.name, err))
		return
	}
	fmt.Printf("=== pass %s: %d packages %s\n", p.name, len(packages), strings.Join(p.flags, " "))
	start := time.Now()
	args := slices.Concat([]string{"test", "-json", "-count=1", "-timeout", max(left-graceAtEnd, time.Second).String()},
		p.flags, packages)
	cmd := command(ctx, args...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		all.broken = append(all.broken, fmt.Sprintf("pass %s: go test: %v", p.name, err))
		return
	}
	r := newReader(p.name, all, os.Stdout, verbose)
	readErr := r.read(out)
	if readErr != nil {
		_, _ = io.Copy(os.Stdout, out)
	}
	err = cmd.Wait()
	r.finish()
	switch {
	case ctx.Err() != nil:
		all.broken = append(all.broken, fmt.Sprintf("pass %s: cut short: %v", p.name, context.Cause(ctx)))
	case readErr != nil:
		all.broken = append(all.broken, fmt.Sprintf("pass %s: %v", p.name, readErr))
	case err != nil && r.failures == 0:
		all.broken = append(all.broken, fmt.Sprintf("pass %s: go test: %v\n%s", p.name, err, &complaint))
	}
	fmt.Printf("=== pass %s took %.0f s\n", p.name, time.Since(start).Seconds())
}

// packages lists the pass's packages.
func (p pass) packages(ctx context.Context) ([]string, error) {
	var complaint bytes.Buffer
	cmd := command(ctx, append([]string{"list", "-e"}, p.in...)...)
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, &complaint)
	}
	var packages []string
	for pkg := range strings.FieldsSeq(string(out)) {
		if !slices.Contains(p.out, pkg) {
			packages = append(packages, pkg)
		}
	}
	return packages, nil
}

// command is a go command that ctx ends together with all that it started.
func command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}
