//go:build !race

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"microvm/guest/tiny"
	"microvm/migration/tlstest"
	"microvm/vmm"
)

// A rehearsal is where the command lines of one page are run: a folder with what they name, and two hosts.
type rehearsal struct {
	t    *testing.T
	line docLine
	dir  string
	made map[string]string // by VM: how it was made, if it was made here
	dest *destination      // that waits for a VM
}

// A destination is a receive on the other host.
type destination struct {
	p    *shell
	addr string
	tls  bool
}

// A shell runs a command line.
type shell struct {
	cmd   *exec.Cmd
	out   *transcript // stdout and stderr
	ended chan struct{}
}

// The hosts, by the folders that have their state.
const (
	here  = "h"
	there = "t"
)

func newRehearsal(t *testing.T) *rehearsal {
	t.Helper()
	// Not t.TempDir(): sockets have short paths.
	dir, err := os.MkdirTemp("", "mv")
	if err != nil {
		t.Fatal(err)
	}
	r := &rehearsal{t: t, dir: dir, made: map[string]string{}}
	t.Cleanup(func() {
		for _, host := range []string{here, there} {
			for _, name := range r.vms(host) {
				r.on(host, "microvm stop "+name+" --force")
			}
		}
		os.RemoveAll(dir)
	})
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"bin/microvm": "#!/bin/sh\n" + beMicrovm + "=1 exec " + program + " \"$@\"\n",
		"vmlinuz":     string(tiny.Kernel()),
		"initrd.gz":   "no guest here looks into it",
		"root.img":    string(make([]byte, 1<<20)),
		"data.img":    string(make([]byte, 1<<20)),
		"shared.img":  string(make([]byte, 1<<20)),
		// Of when a snapshot was taken, and where snapshots are.
		"root-then.img": string(make([]byte, 1<<20)), "vms/x": "",
		// Where completions and manual pages are told to go.
		".zsh/completions/x": "", ".config/fish/completions/x": "", "man/x": "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(tlstest.NewCA(t).Folder(), filepath.Join(dir, "tls")); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rehearsal) fatalf(format string, args ...any) {
	r.t.Helper()
	r.t.Fatalf("%s:%d: %s\n"+format, append([]any{r.line.page, r.line.number, r.line.text}, args...)...)
}

// run makes what the line needs, and runs it.
func (r *rehearsal) run() {
	r.t.Helper()
	text := strings.TrimSuffix(r.line.text, " &") // each is run in the background
	for _, s := range replaced {
		text = strings.ReplaceAll(text, s.what, strings.ReplaceAll(s.by, "{here}", r.dir))
	}
	for _, m := range regexp.MustCompile(`/run/microvm/(\w+)/`).FindAllStringSubmatch(text, -1) {
		r.needVM(m[1], "", "")
	}
	text = strings.ReplaceAll(text, "/run/microvm", filepath.Join(r.dir, here))
	calls := r.calls(text)
	for i, c := range calls {
		r.prepare(c, calls[:i])
	}
	host, addr := here, "tcp:127.0.0.1:0"
	if len(calls) > 0 && calls[0].name == "receive" {
		host = there
	} else if r.dest != nil {
		addr = r.dest.addr
	}
	text = hostAddress.ReplaceAllString(text, addr)
	text = strings.ReplaceAll(text, "{port}", addr[strings.LastIndex(addr, ":")+1:])
	text = powerButton.ReplaceAllString(text, "$0 --timeout 1ms")
	before := r.running()
	r.finish(r.start(host, text), calls, before)
}

// start runs a line on a host; one with a network card in a network of its own, with a bridge.
func (r *rehearsal) start(host, text string) *shell {
	r.t.Helper()
	p := &shell{cmd: exec.Command("bash", "-o", "pipefail", "-c", text), out: newTranscript(), ended: make(chan struct{})}
	p.cmd.Dir = r.dir
	p.cmd.Env = append(os.Environ(), "HOME="+r.dir, "PATH="+filepath.Join(r.dir, "bin")+":"+os.Getenv("PATH"),
		vmm.StateDirEnv+"="+filepath.Join(r.dir, host))
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.WaitDelay = patience
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	begin := func() {
		if err := p.cmd.Start(); err != nil {
			r.t.Fatal(err)
		}
	}
	if strings.Contains(text, "bridge=br0") {
		n := newNamespaces(r.t, "10.112.0")
		n.in(n.left, func() {
			if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}); err != nil {
				r.t.Fatal(err)
			}
			for _, name := range []string{"lo", "br0"} {
				link, err := netlink.LinkByName(name)
				if err == nil {
					err = netlink.LinkSetUp(link)
				}
				if err != nil {
					r.t.Fatal(err)
				}
			}
			begin()
		})
	} else {
		begin()
	}
	go func() {
		_ = p.cmd.Wait() // the status is in ProcessState
		close(p.ended)
	}()
	r.t.Cleanup(func() {
		_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL) // it may have ended
		<-p.ended
	})
	return p
}

// finish waits for a line to end, or to be where it would stay, and then ends what it waits for. There were so many VMs
// before.
func (r *rehearsal) finish(p *shell, calls []call, before int) {
	r.t.Helper()
	if len(calls) == 0 {
		r.ends(p, 0)
		return
	}
	last := calls[len(calls)-1]
	watches := last.said("watch") || last.said("follow")
	switch {
	case (last.name == "run" || last.name == "restore") && !last.said("detach") && !last.said("print-config"):
		r.await(p, "a VM that runs", func() bool { return r.running() > before })
		r.stopAll()
		r.ends(p, 0)
	case last.name == "receive":
		addr := r.address(p)
		if last.said("console") && !last.said("disk") && !last.said("net") { // the next migrate goes there
			r.endDestination()
			r.dest = &destination{p: p, addr: addr}
			return
		}
		_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGTERM) // it may have ended
		<-p.ended
	case last.said("listen"):
		r.await(p, "anything", func() bool { return p.out.String() != "" })
		_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGTERM) // it may have ended
		<-p.ended
	case last.name == "migrate-status" && watches:
		r.await(p, "anything", func() bool { return p.out.String() != "" })
		r.on(here, "microvm migrate-cancel "+last.vm())
		r.ends(p, exitStays)
	case last.name == "console":
		r.await(p, "the guest's output", func() bool { return strings.Contains(p.out.String(), "beat") })
		if last.said("reconnect") { // it would wait for another
			_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGTERM) // it may have ended
			<-p.ended
			return
		}
		r.stopAll()
		r.ends(p, 0)
	case last.name == "wait", watches:
		if watches && (last.name != "logs" || last.said("console")) { // a log may be empty
			r.await(p, "anything", func() bool { return p.out.String() != "" })
		}
		r.stopAll()
		r.ends(p, 0)
	case last.name == "doctor":
		r.ends(p, exitDone, exitFailure) // what it finds here is not the page's affair
	case last.name == "stop" && !last.said("force"):
		r.ends(p, exitTimeout)
	default:
		r.ends(p, 0)
	}
	if slices.ContainsFunc(calls, func(c call) bool { return c.name == "migrate" }) {
		r.endDestination()
	}
}

// ends waits for the line to end with one of the statuses.
func (r *rehearsal) ends(p *shell, statuses ...int) {
	r.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		r.fatalf("it does not end; it printed:\n%s", p.out)
	}
	if got := p.cmd.ProcessState.ExitCode(); !slices.Contains(statuses, got) {
		r.fatalf("exit status %d, want %d; it printed:\n%s", got, statuses, p.out)
	}
}

// await waits until something is so, while the line runs.
func (r *rehearsal) await(p *shell, what string, so func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	for !so() {
		select {
		case <-p.ended:
			if !so() {
				r.fatalf("it ended (status %d) without %s; it printed:\n%s", p.cmd.ProcessState.ExitCode(), what, p.out)
			}
			return
		case <-ctx.Done():
			r.fatalf("no %s; it printed:\n%s", what, p.out)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// on runs a line that is the test's own, and gives its output.
func (r *rehearsal) on(host, text string) string {
	r.t.Helper()
	p := r.start(host, text)
	r.ends(p, 0)
	return p.out.String()
}

// vms are the VMs that run on a host.
func (r *rehearsal) vms(host string) []string {
	r.t.Helper()
	return strings.Fields(r.on(host, "microvm ps -q"))
}

// running is how many of this host's have booted.
func (r *rehearsal) running() int {
	r.t.Helper()
	return strings.Count(r.on(here, "microvm ps"), " running ")
}

// stopAll ends all VMs of this host.
func (r *rehearsal) stopAll() {
	r.t.Helper()
	for _, name := range r.vms(here) {
		r.on(here, "microvm stop "+name+" --force")
	}
	clear(r.made)
}

func (r *rehearsal) endDestination() {
	if r.dest != nil {
		_ = unix.Kill(-r.dest.p.cmd.Process.Pid, unix.SIGKILL) // it may have ended
		<-r.dest.p.ended
		r.dest = nil
	}
}

// needVM has a VM of that name run here, made with these flags if they are said.
func (r *rehearsal) needVM(name, flags, cmdline string) {
	r.t.Helper()
	how := flags + " -p '" + cmdline + " beat=100'"
	if slices.Contains(r.vms(here), name) {
		if flags == "" && cmdline == "" || r.made[name] == how {
			return
		}
		r.on(here, "microvm stop "+name+" --force")
	}
	r.on(here, "microvm run --detach -m 128M --name "+name+" "+how)
	r.made[name] = how
	if strings.Contains(cmdline, "fill") {
		p := r.start(here, "microvm console "+name)
		r.await(p, "a heartbeat", func() bool { return strings.Contains(p.out.String(), "beat") })
	}
}

// needDestination has a receive wait on the other host.
func (r *rehearsal) needDestination(listen string, tls bool) {
	r.t.Helper()
	if r.dest != nil && r.dest.tls == tls && strings.HasPrefix(r.dest.addr, listen[:4]) {
		return
	}
	r.endDestination()
	text := "microvm receive --console socket --listen " + listen
	if tls {
		text += " --tls-dir tls"
	}
	p := r.start(there, text)
	r.dest = &destination{p, r.address(p), tls}
}

var address = regexp.MustCompile(`(?m)^(tcp:127\.0\.0\.1:\d+|unix:\S+)\n`)

// address is what a receive prints.
func (r *rehearsal) address(p *shell) string {
	r.t.Helper()
	r.await(p, "an address", func() bool { return address.MatchString(p.out.String()) })
	return address.FindStringSubmatch(p.out.String())[1]
}
