package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"microvm/vmm"
	"microvm/vmm/client"
)

// A process is a microvm in the background: run, receive, or a migrate that a
// test interferes with.
type process struct {
	t              *testing.T
	h              *host
	cmd            *exec.Cmd
	stdin          io.WriteCloser
	stdout, stderr *transcript
	ended          chan struct{} // closed when the process has, and all of its output is here
	patience       time.Duration // how long to wait for it
	stacks         bool          // it was made to print where it is: see quit
}

// start starts a process, which ends with the test. If the test fails, what it
// printed is shown.
func (h *host) start(args ...string) *process {
	h.t.Helper()
	return h.startWith(nil, args...)
}

// startWith starts a process that is passed files, as descriptors from 3 on.
func (h *host) startWith(files []*os.File, args ...string) *process {
	h.t.Helper()
	p := &process{t: h.t, h: h, cmd: h.command(args...), stdout: newTranscript(), stderr: newTranscript(), ended: make(chan struct{}), patience: patience}
	p.cmd.Env = append(p.cmd.Env, vmm.StateDirEnv+"="+h.root)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.ExtraFiles = p.stdout, p.stderr, files
	// Not even a test that is killed leaves a VM behind.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		h.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.processes = append(h.processes, p)
	go func() {
		_ = p.cmd.Wait() // the status is in ProcessState
		close(p.ended)
	}()
	h.t.Cleanup(func() {
		p.kill()
		if h.t.Failed() {
			h.t.Logf("microvm %s, status %d\n--- stdout:\n%s--- stderr:\n%s",
				strings.Join(args, " "), p.cmd.ProcessState.ExitCode(), tail(p.stdout.String()), p.complaints())
		}
	})
	return p
}

// quit ends all processes so that they print what each goroutine is at, and shows
// where their threads are in the kernel.
func (h *host) quit() {
	for _, p := range h.processes {
		h.t.Logf("microvm %s, in the kernel:\n%s", p.cmd.Args[1], kernelStacks(p.cmd.Process.Pid))
		_ = p.cmd.Process.Signal(unix.SIGQUIT) // it may have ended
		p.stacks = true
	}
	late := time.After(patience)
	for _, p := range h.processes {
		select {
		case <-p.ended:
		case <-late: // a vCPU that waits for memory keeps it
		}
	}
}

// kernelStacks is where each thread of a process is in the kernel, as far as that
// can be told: a kernel may be built without stacks.
func kernelStacks(pid int) string {
	var b strings.Builder
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, dir := range threads {
		for _, file := range []string{"stat", "wchan", "syscall", "stack"} {
			text, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				text = []byte(err.Error())
			}
			fmt.Fprintf(&b, "%s: %s\n", file, bytes.TrimSpace(text))
		}
	}
	return b.String()
}

// complaints is what it said on stderr: the last of it, or every stack.
func (p *process) complaints() string {
	if p.stacks {
		return p.stderr.String()
	}
	return tail(p.stderr.String())
}

// tail is the last of a long text.
func tail(text string) string {
	const most = 4 << 10
	if len(text) > most {
		return "...\n" + text[len(text)-most:]
	}
	return text
}

// signal sends the process a signal.
func (p *process) signal(s unix.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// kill ends the process and waits for that.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// wait waits for the process to end by itself and checks its exit status.
func (p *process) wait(status int) {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(p.patience):
		p.h.quit()
		p.t.Fatalf("microvm %s does not end", p.cmd.Args[1])
	}
	if got := p.cmd.ProcessState.ExitCode(); got != status {
		p.t.Fatalf("microvm %s: status %d, want %d", p.cmd.Args[1], got, status)
	}
}

// runs checks that the process has not ended.
func (p *process) runs() {
	p.t.Helper()
	select {
	case <-p.ended:
		p.t.Fatalf("microvm %s has ended", p.cmd.Args[1])
	default:
	}
}

// askUntil asks again and again whether something is so, for as long as it may
// take. It is for what nothing tells of when it comes about: a count, what the
// kernel says of a process. ask says too what is found in place of it.
func askUntil(t *testing.T, within time.Duration, ask func() (so bool, found string)) {
	t.Helper()
	for late := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		so, found := ask()
		if so {
			return
		}
		if time.Now().After(late) {
			t.Fatal(found)
		}
	}
}

// await returns when the process has printed what want looks for on stdout.
func (p *process) await(what string, want func(text string) bool) {
	p.t.Helper()
	p.awaitOn(p.stdout, what, want)
}

// awaitOutput returns when it has said something on stdout.
func (p *process) awaitOutput(words string) {
	p.t.Helper()
	p.await(strconv.Quote(words), func(text string) bool { return strings.Contains(text, words) })
}

// awaitError returns when it has said something on stderr.
func (p *process) awaitError(words string) {
	p.t.Helper()
	p.awaitOn(p.stderr, strconv.Quote(words), func(text string) bool { return strings.Contains(text, words) })
}

func (p *process) awaitOn(out *transcript, what string, want func(text string) bool) {
	p.t.Helper()
	late := time.After(p.patience)
	for {
		text, more := out.read()
		if want(text) {
			return
		}
		select {
		case <-more:
		case <-p.ended:
			if !want(out.String()) {
				p.t.Fatalf("microvm %s ended without %s", p.cmd.Args[1], what)
			}
			return
		case <-late:
			p.h.quit()
			p.t.Fatalf("microvm %s: no %s", p.cmd.Args[1], what)
		}
	}
}

// awaitLine returns the first whole line that begins with prefix.
func (p *process) awaitLine(prefix string) (line string) {
	p.t.Helper()
	p.await("a line "+strconv.Quote(prefix), func(text string) bool {
		for l := range strings.Lines(text) {
			if strings.HasPrefix(l, prefix) && strings.HasSuffix(l, "\n") {
				line = strings.TrimRight(l, "\r\n")
				return true
			}
		}
		return false
	})
	return line
}

// enter types a line on the guest's console.
func (p *process) enter(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, line+"\r"); err != nil {
		p.t.Fatal(err)
	}
}

// A transcript is what a process prints, and a test waits at.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // closed when text grows
}

func newTranscript() *transcript { return &transcript{more: make(chan struct{})} }

func (w *transcript) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(b)
	close(w.more)
	w.more = make(chan struct{})
	return len(b), nil
}

func (w *transcript) String() string {
	text, _ := w.read()
	return text
}

// read gives the text, and a channel that is closed when there is more.
func (w *transcript) read() (string, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String(), w.more
}

// A beat is a heartbeat line of the tiny kernel.
type beat struct{ n, pages, bad uint64 }

var beatLine = regexp.MustCompile(`(?m)^beat (\d+) pages (\d+) bad (\d+)\r\n`)

// beats are the heartbeats in a console's text.
func beats(text string) (all []beat) {
	for _, m := range beatLine.FindAllStringSubmatch(text, -1) {
		var v [3]uint64
		for i := range v {
			v[i], _ = strconv.ParseUint(m[i+1], 10, 64) // \d+ that a guest counted
		}
		all = append(all, beat{v[0], v[1], v[2]})
	}
	return all
}

// goesOn checks that the guest is alive: n more heartbeats come.
func (p *process) goesOn(n int) {
	p.t.Helper()
	now := len(beats(p.stdout.String()))
	p.await("heartbeats", func(text string) bool { return len(beats(text)) >= now+n })
}

// screens puts together what a guest printed in one process after another.
func screens(processes ...*process) string {
	text := ""
	for _, p := range processes {
		part := p.stdout.String()
		if p.cmd.Args[1] == "receive" {
			_, part, _ = strings.Cut(part, "\n") // the address
		}
		text += part
	}
	return text
}

// endsThere checks that a guest works at dest, where it is called name, that its
// source has ended, and that all it ever printed is whole. It ends it.
func (h *host) endsThere(source, dest *process, name string) {
	h.t.Helper()
	source.wait(0)
	dest.goesOn(5)
	h.must(0, "stop", name, "--force")
	dest.wait(0)
	checkScreen(h.t, screens(source, dest))
}

// wander has a busy guest move from name to name, by receive with these flags and
// by move, which is given the VM and where to.
func (h *host) wander(names, receive []string, move func(step int, name, addr string)) {
	h.t.Helper()
	way := []*process{h.boot(names[0], busy)}
	for i, name := range names[1:] {
		dest, addr := h.receive(append([]string{"--name", name}, receive...)...)
		move(i, names[i], addr)
		way[i].wait(0)
		dest.goesOn(5)
		way = append(way, dest)
	}
	h.must(0, "stop", names[len(names)-1], "--force")
	way[len(way)-1].wait(0)
	checkScreen(h.t, screens(way...))
}

var guestLine = regexp.MustCompile(`^(tiny: .*|ready|beat \d+ pages \d+ bad 0|echo .*|sweep pages \d+ bad 0|end)\r\n$`)

// checkScreen checks all that a tiny kernel has printed, wherever it was: no
// byte is lost or doubled, no page was bad, no heartbeat is missing and none
// comes twice.
func checkScreen(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if strings.HasSuffix(line, "\n") && !guestLine.MatchString(line) {
			t.Errorf("the guest printed %q", line)
		}
	}
	all := beats(text)
	for i, b := range all {
		if b.n != uint64(i+1) {
			t.Errorf("heartbeat %d comes where %d should: time has jumped", b.n, i+1)
			break
		}
	}
	if !slices.IsSortedFunc(all, func(a, b beat) int { return int(a.pages) - int(b.pages) }) {
		t.Errorf("the guest's work went back: %v", all)
	}
}

// What most of these tests' guests do: they write at random all over the
// memory and check every page that they come to.
const busy = "fill=1 work=write order=rand check=1 beat=100"

// boot starts a VM with the tiny kernel and waits until it works.
func (h *host) boot(name, cmdline string, flags ...string) *process {
	h.t.Helper()
	needKVM(h.t)
	p := h.start(append([]string{"run", "--name", name, "-p", cmdline, "-m", "256M", "-c", "2"}, flags...)...)
	p.awaitLine("beat ")
	return p
}

// receive starts a destination on the loopback interface, and returns the
// address that it prints.
func (h *host) receive(flags ...string) (p *process, addr string) {
	h.t.Helper()
	p = h.start(append([]string{"receive", "--listen", "tcp:127.0.0.1:0"}, flags...)...)
	return p, p.awaitLine("tcp:127.0.0.1:")
}

// state is what ps says of a VM, with (migrating) cut off; empty if it does
// not list it.
func (h *host) state(name string) string {
	h.t.Helper()
	info, err := h.inspect(name)
	switch {
	case errors.Is(err, vmm.ErrNoSuchVM):
		return ""
	case err != nil:
		h.t.Fatal(err)
	}
	return info.State.String()
}

// inspect asks a VM's process.
func (h *host) inspect(name string) (vmm.Info, error) {
	c, err := client.Dial(name)
	if err != nil {
		return vmm.Info{}, err
	}
	return c.Info(h.t.Context())
}
