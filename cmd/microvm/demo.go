package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"microvm/vmm"
	"microvm/vmm/client"
)

var demoCommand = command{
	name:    "demo",
	summary: "Show a postcopy migration between two VM processes on this machine",
	usage:   "demo [-m SIZE] [-c CPUS] [--report text|json]",
	about: `
Boots the embedded tiny kernel in one process, has it fill its memory and write
to it at random on every CPU, checking each page as it goes; moves it to a
second process by postcopy while it works; waits until it has gone on there, and
prints the report of the migration. Needs nothing but /dev/kvm and userfaultfd.`,
	examples: []string{"microvm demo", "microvm demo -m 1G -c 2 --report json"},
	prepare: func(flags *pflag.FlagSet) runner {
		d := demo{memory: 512 << 20}
		flags.VarP(&d.memory, "memory", "m", "guest memory: bytes, or with K, M, G")
		flags.IntVarP(&d.cpus, "cpus", "c", 2, "number of vCPUs")
		flags.StringVar(&d.report, "report", "text", "on stdout: text or json")
		return func(ctx context.Context, args []string, stdout io.Writer) error {
			if err := noArguments(args); err != nil {
				return err
			}
			if d.report != "text" && d.report != "json" {
				return usagef("--report %s: has to be text or json", d.report)
			}
			return d.run(ctx, stdout)
		}
	},
}

// demo is one run of the command.
type demo struct {
	memory size
	cpus   int
	report string
}

// demoTimeout bounds the whole, for a machine on which something hangs.
const demoTimeout = 3 * time.Minute

func (d *demo) run(ctx context.Context, stdout io.Writer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, demoTimeout, fmt.Errorf("not done after %v", demoTimeout))
	defer cancel()
	root, err := os.MkdirTemp("", "microvm-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	// The VMs of the demonstration keep to themselves.
	if err := os.Setenv("MICROVM_STATE_DIR", root); err != nil {
		return err
	}
	say := func(format string, args ...any) { fmt.Fprintf(os.Stderr, "demo: "+format+"\n", args...) }

	say("boot the tiny kernel: %s of memory, %d vCPUs, each writing and checking pages at random", bytesText(uint64(d.memory)), d.cpus)
	source, err := startGuest(ctx, "source", "run", "--name", "source", "-m", fmt.Sprint(uint64(d.memory)), "-c", fmt.Sprint(d.cpus),
		"-p", "fill=1 work=write order=rand check=1 beat=100")
	if err != nil {
		return err
	}
	defer source.kill()
	if _, err := source.expect(ctx, "beat 3 "); err != nil {
		return err
	}
	say("start a second process to receive it")
	dest, err := startGuest(ctx, "destination", "receive", "--listen", "unix:"+filepath.Join(root, "in.sock"), "--name", "destination")
	if err != nil {
		return err
	}
	defer dest.kill()
	addr, err := dest.expect(ctx, "unix:")
	if err != nil {
		return err
	}
	say("microvm migrate source %s --postcopy --verify", addr)
	show, err := newProgress("auto", os.Stderr)
	if err != nil {
		return err
	}
	m := migrateRun{req: vmm.MigrateRequest{Destination: addr, Connections: defaultConnections, Verify: true}, report: d.report, show: show, stdout: stdout}
	if err := m.run(ctx, "source"); err != nil {
		return err
	}
	if err := source.wait(); err != nil {
		return fmt.Errorf("the source's process: %w", err)
	}
	say("the source's process has ended; the guest goes on at the destination:")
	beat, err := dest.expectNext(ctx, "beat ", 10)
	if err != nil {
		return err
	}
	say("%s", beat)
	if !strings.HasSuffix(beat, " bad 0") {
		return errors.New("the guest found bad pages")
	}
	c, err := client.Dial("destination")
	if err != nil {
		return err
	}
	if err := c.Stop(ctx, true, 0); err != nil {
		return err
	}
	return dest.wait()
}

// guestProcess is a microvm process whose console is read.
type guestProcess struct {
	name  string
	cmd   *exec.Cmd
	lines chan string
}

// startGuest runs this program with args.
func startGuest(ctx context.Context, name string, args ...string) (*guestProcess, error) {
	p := &guestProcess{name: name, cmd: exec.CommandContext(ctx, "/proc/self/exe", args...), lines: make(chan string, 1024)}
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the %s: %w", name, err)
	}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- strings.TrimRight(s.Text(), "\r")
		}
	}()
	return p, nil
}

// expect returns the next line that begins with prefix.
func (p *guestProcess) expect(ctx context.Context, prefix string) (string, error) {
	return p.expectNext(ctx, prefix, 1)
}

// expectNext returns the nth line from here on that begins with prefix. A page
// that the guest found bad ends the wait.
func (p *guestProcess) expectNext(ctx context.Context, prefix string, n int) (string, error) {
	for {
		select {
		case line, ok := <-p.lines:
			switch {
			case !ok:
				return "", fmt.Errorf("the %s ended before it said %q", p.name, prefix)
			case strings.HasPrefix(line, "BAD"), strings.HasPrefix(line, "PANIC"):
				return "", fmt.Errorf("the guest at the %s says: %s", p.name, line)
			case strings.HasPrefix(line, prefix):
				if n--; n == 0 {
					return line, nil
				}
			}
		case <-ctx.Done():
			return "", fmt.Errorf("wait for %q from the %s: %w", prefix, p.name, context.Cause(ctx))
		}
	}
}

// wait waits for the process to end well, reading on so that it can.
func (p *guestProcess) wait() error {
	for range p.lines {
	}
	return p.cmd.Wait()
}

// kill ends the process if it has not ended.
func (p *guestProcess) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.wait()
	}
}
