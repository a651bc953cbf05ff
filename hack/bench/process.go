package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// waitLimit bounds every wait for a program to say or do something.
const waitLimit = 3 * time.Minute

// process is a program of which the output is read line by line.
type process struct {
	cmd    *exec.Cmd
	input  io.Writer // its stdin
	begun  time.Time
	errors bytes.Buffer

	mu     sync.Mutex
	lines  []string
	ended  bool
	change chan struct{} // closed and replaced at each change
}

// start starts a program. It dies with ctx.
func start(ctx context.Context, env []string, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, name, args...), change: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = &p.errors
	p.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.input = in
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.begun = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go p.read(out)
	return p, nil
}

func (p *process) read(out io.Reader) {
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		p.update(func() { p.lines = append(p.lines, strings.TrimRight(scanner.Text(), "\r")) })
	}
	_, _ = io.Copy(io.Discard, out) // a line too long for the scanner does not hold up its writer
	p.update(func() { p.ended = true })
}

func (p *process) update(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.change)
	p.change = make(chan struct{})
}

// await waits for a line, counted from 0, that holds text, and returns its number and when it was seen.
func (p *process) await(from int, text string) (at int, line string, when time.Time, err error) {
	limit := time.NewTimer(waitLimit)
	defer limit.Stop()
	for {
		p.mu.Lock()
		lines, ended, change := p.lines, p.ended, p.change
		p.mu.Unlock()
		for ; from < len(lines); from++ {
			if strings.Contains(lines[from], text) {
				return from, lines[from], time.Now(), nil
			}
		}
		if ended {
			return 0, "", time.Time{}, fmt.Errorf("%s ended without saying %q: %s", p.cmd.Path, text, p.last())
		}
		select {
		case <-change:
		case <-limit.C:
			return 0, "", time.Time{}, fmt.Errorf("%s did not say %q within %v: %s", p.cmd.Path, text, waitLimit, p.last())
		}
	}
}

// said is the number of lines so far.
func (p *process) said() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lines)
}

// last is what a process said last, for an error.
func (p *process) last() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := strings.Join(p.lines[max(0, len(p.lines)-3):], " | ")
	if p.ended {
		text += " | " + strings.TrimSpace(p.errors.String())
	}
	return text
}

// end kills the process if it is still there, and waits for it.
func (p *process) end() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // killed is what it was
}
