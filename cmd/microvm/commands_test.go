package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"microvm/vmm"
	"microvm/vmm/client"
)

func TestUsageErrors(t *testing.T) {
	t.Setenv(vmm.StateDirEnv, t.TempDir())
	for _, c := range []struct {
		args   string
		status int
		want   string // in stderr
	}{
		{"", exitUsage, "usage: microvm COMMAND"},
		{"fly", exitUsage, "no such command: fly"},
		{"run --wings", exitUsage, "unknown flag: --wings"},
		{"run spare", exitUsage, `unexpected argument "spare"`},
		{"run -m lots", exitUsage, `"lots" is not a size`},
		{"run -m 64M", exitUsage, "64 MiB"},
		{"run -c 0", exitUsage, "0 vCPUs"},
		{"run --name ../a", exitUsage, `"../a"`},
		{"run --console tty", exitUsage, `"tty"`},
		{"run --detach --console stdio", exitUsage, "exclude each other"},
		{"run -i initrd.gz", exitUsage, "needs a kernel"},
		{"run -k /no/such/kernel", exitFailure, "/no/such/kernel"},
		{"ps --format xml", exitUsage, "--format xml"},
		{"stats a --format yaml", exitUsage, "--format yaml"},
		{"stats a --format prom --watch", exitUsage, "exclude each other"},
		{"stats a --format prom", exitNoVM, "no such VM"},
		{"metrics a", exitUsage, `unexpected argument "a"`},
		{"metrics --listen here", exitUsage, "--listen here"},
		{"stats", exitUsage, "give the name of one VM"},
		{"stats a", exitNoVM, "no such VM"},
		{"report", exitUsage, "give the file of a report"},
		{"report a.json --format png", exitUsage, "--format png"},
		{"report /no/such/file", exitFailure, "/no/such/file"},
		{"report /dev/null -o a.svg", exitFailure, "/dev/null: there is no event of a migration, and no report"},
		{"migrate-status a --plot a.svg --watch", exitNoVM, "no such VM"},
		{"receive --listen tcp:127.0.0.1:0 --progress loud", exitUsage, "--progress loud"},
		{"inspect", exitUsage, "give the name of one VM"},
		{"inspect a b", exitUsage, "give the name of one VM"},
		{"inspect a", exitNoVM, "no such VM"},
		{"pause a", exitNoVM, "no such VM"},
		{"stop a", exitNoVM, "no such VM"},
		{"console a", exitNoVM, "no such VM"},
		{"logs a", exitNoVM, "no such VM"},
		{"wait a", exitNoVM, "no such VM"},
		{"version --format xml", exitUsage, "--format xml"},
	} {
		t.Run(c.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := dispatch(context.Background(), strings.Fields(c.args), &stdout, &stderr)
			if status != c.status || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("status %d, want %d; stderr %q, want %q in it", status, c.status, &stderr, c.want)
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout has %q", &stdout)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	var list bytes.Buffer
	if status := dispatch(context.Background(), []string{"help"}, &list, &list); status != exitDone {
		t.Fatalf("status %d", status)
	}
	for _, c := range commands {
		if !strings.Contains(list.String(), "  "+c.name+" ") {
			t.Errorf("help does not list %s", c.name)
		}
		var byFlag, byName bytes.Buffer
		for _, call := range []struct {
			args []string
			out  *bytes.Buffer
		}{{[]string{c.name, "--help"}, &byFlag}, {[]string{"help", c.name}, &byName}} {
			if status := dispatch(context.Background(), call.args, call.out, call.out); status != exitDone {
				t.Errorf("%q: status %d", call.args, status)
			}
		}
		if byFlag.String() != byName.String() {
			t.Errorf("%s --help and help %s differ", c.name, c.name)
		}
		if text := byName.String(); !strings.HasPrefix(c.usage, c.name) || !strings.Contains(text, "usage: microvm "+c.usage) || !strings.Contains(text, "examples:") {
			t.Errorf("%s has no usage or no example:\n%s", c.name, text)
		}
		flags, _ := c.flagSet()
		flags.VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s is not explained", c.name, f.Name)
			}
		})
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]uint64{
		"0": 0, "4096": 4096, "1k": 1 << 10, "256M": 256 << 20, "256MiB": 256 << 20, "4g": 4 << 30, "4GB": 4 << 30, "1T": 1 << 40,
	} {
		var s size
		if err := s.Set(text); err != nil || uint64(s) != want {
			t.Errorf("%q is %d, %v; want %d", text, s, err, want)
		}
		var back size
		if err := back.Set(s.String()); err != nil || back != s {
			t.Errorf("%q is written as %q and read as %d", text, s.String(), back)
		}
	}
	for _, text := range []string{"", "M", "-1", "1.5G", "16777216T", "1X", "1 G"} {
		var s size
		if err := s.Set(text); err == nil {
			t.Errorf("%q is %d", text, s)
		}
	}
}

func TestVMFromTheCommandLine(t *testing.T) {
	needKVM(t)
	h := newHost(t)
	if r := h.must(0, "run", "--name", "a", "-c", "2", "-m", "128M", "-p", "beat=50", "--detach"); r.stdout != "a\n" {
		t.Errorf("run --detach prints %q", r.stdout)
	}
	if r := h.must(exitFailure, "run", "--name", "a"); !strings.Contains(r.stderr, "a VM of this name is running") {
		t.Errorf("a second VM of the name: %s", r.stderr)
	}
	var rows []psRow
	state := func(want string) {
		t.Helper()
		if err := json.Unmarshal([]byte(h.must(0, "ps", "--format", "json").stdout), &rows); err != nil {
			t.Fatal(err)
		}
		if len(rows) != 1 || rows[0].Name != "a" || rows[0].State != want || rows[0].CPUs != 2 || rows[0].Memory != 128<<20 {
			t.Errorf("ps: %+v, want it %s", rows, want)
		}
	}
	state("running")
	h.must(0, "pause", "a")
	state("paused")
	h.must(0, "resume", "a")
	state("running")
	if r := h.must(0, "ps", "-q"); r.stdout != "a\n" {
		t.Errorf("ps -q prints %q", r.stdout)
	}
	if r := h.must(0, "ps"); !strings.Contains(r.stdout, "NAME") || !strings.Contains(r.stdout, "128M") {
		t.Errorf("ps prints %q", r.stdout)
	}
	var info vmm.Info
	if err := json.Unmarshal([]byte(h.must(0, "inspect", "a").stdout), &info); err != nil {
		t.Fatal(err)
	}
	if info.Name != "a" || info.Cmdline != "beat=50" || info.State != vmm.StateRunning || info.Console != vmm.ConsoleSocket {
		t.Errorf("inspect: %+v", info)
	}
	if r := h.must(exitTimeout, "stop", "a", "--timeout", "1ms"); !strings.Contains(r.stderr, "--force") {
		t.Errorf("a guest without ACPI: %s", r.stderr)
	}

	console := h.command("console", "a")
	typed, err := console.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	seen, err := console.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := console.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := typed.Write([]byte("hello\r")); err != nil {
		t.Fatal(err)
	}
	var text []byte
	for !bytes.Contains(text, []byte("echo hello\r\n")) {
		b := make([]byte, 256)
		n, err := seen.Read(b)
		if text = append(text, b[:n]...); err != nil {
			t.Fatalf("the console ends with %v after %q", err, text)
		}
	}

	if r := h.must(0, "logs", "a", "--console"); !strings.HasPrefix(r.stdout, "tiny: ") || !strings.Contains(r.stdout, "echo hello\r\n") {
		t.Errorf("what the guest printed: %q", r.stdout)
	}
	followed := []*process{h.start("logs", "a", "--follow"), h.start("logs", "a", "--console", "--follow")}
	followed[1].awaitOutput("echo hello\r\n")

	h.must(0, "stop", "a", "--force")
	for err == nil {
		_, err = seen.Read(make([]byte, 256))
	}
	if err := console.Wait(); err != nil {
		t.Errorf("the console of a VM that has ended: %v", err)
	}
	if r := h.must(0, "wait", "a"); r.stdout != "stopped\n" {
		t.Errorf("wait prints %q", r.stdout)
	}
	for _, p := range followed {
		p.wait(0)
	}
	log := h.must(0, "logs", "a").stdout
	if got := followed[0].stdout.String(); got != log || !strings.Contains(log, "the VM has ended") {
		t.Errorf("the log is %q, followed it was %q", log, got)
	}
	if r := h.must(0, "logs", "a", "--console"); !strings.Contains(r.stdout, "echo hello\r\n") || !strings.HasPrefix(followed[1].stdout.String(), r.stdout) {
		t.Errorf("what the guest printed, after its end: %q; followed: %q", r.stdout, followed[1].stdout)
	}
	h.must(exitNoVM, "pause", "a")
	if r := h.must(0, "ps", "-q"); r.stdout != "" {
		t.Errorf("ps lists %q", r.stdout)
	}
	if r := h.must(0, "ps", "-a"); !strings.Contains(r.stdout, "stopped (0: stopped)") {
		t.Errorf("ps -a prints %q", r.stdout)
	}
}

func TestRunExitsAsTheGuestEnds(t *testing.T) {
	needKVM(t)
	h := newHost(t)
	for _, c := range []struct {
		end    string
		status int
		stderr string
	}{
		{"poweroff", 0, ""},
		{"reboot", 32, "the guest reset itself"},
		{"triple", 33, "triple fault"},
		{"panic", 34, "panicked"},
	} {
		t.Run(c.end, func(t *testing.T) {
			r := h.must(c.status, "run", "-m", "128M", "-p", "beat=50 stop=1 end="+c.end)
			if !strings.Contains(r.stdout, "beat 1 ") {
				t.Errorf("the guest's output is not on stdout: %q", r.stdout)
			}
			if !strings.Contains(r.stderr, c.stderr) {
				t.Errorf("stderr lacks %q:\n%s", c.stderr, r.stderr)
			}
			if c.status == 33 {
				for _, want := range []string{"rip ", "cr3 ", "  code "} {
					if !strings.Contains(r.stderr, want) {
						t.Errorf("stderr lacks %q:\n%s", want, r.stderr)
					}
				}
			}
		})
	}
	// Nobody may have looked at the console of a service.
	if r := h.must(34, "run", "-m", "128M", "--console", "socket", "-p", "beat=50 stop=1 end=panic"); !strings.Contains(r.stderr, "guest: beat 1 ") {
		t.Errorf("stderr lacks what the guest printed last:\n%s", r.stderr)
	}
	if left := h.must(0, "ps", "-a", "-q"); left.stdout != "" {
		t.Errorf("state is left of %q", left.stdout)
	}
}

func TestWaitOfADetachedVMGivesItsStatus(t *testing.T) {
	needKVM(t)
	h := newHost(t)
	h.must(0, "run", "--name", "a", "-m", "128M", "-p", "beat=100 stop=1 end=triple", "--detach")
	if r := h.must(33, "wait", "a"); !strings.Contains(r.stdout, "triple fault") {
		t.Errorf("wait prints %q", r.stdout)
	}
	// The process said so before it had gone; now it goes or has gone.
	h.must(33, "wait", "a")
}

func TestDetachedVMThatCannotRunSaysWhy(t *testing.T) {
	h := newHost(t)
	r := h.must(exitFailure, "run", "--name", "a", "--detach", "-k", "/no/such/kernel")
	if !strings.Contains(r.stderr, "/no/such/kernel") || r.stdout != "" {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
	if r := h.must(0, "ps", "-q"); r.stdout != "" {
		t.Errorf("ps lists %q", r.stdout)
	}
}

func TestSignalEndsTheVM(t *testing.T) {
	needKVM(t)
	h := newHost(t)
	cmd := h.command("run", "--name", "a", "-m", "128M")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // the guest runs
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = out.Read(make([]byte, 256))
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if r := h.must(0, "ps", "-a", "-q"); r.stdout != "" {
		t.Errorf("state is left of %q", r.stdout)
	}
}

// What a killed process leaves must not keep the name.
func TestNameIsFreeAfterKill(t *testing.T) {
	needKVM(t)
	h := newHost(t)
	h.must(0, "run", "--name", "a", "-m", "128M", "--detach")
	i, err := vmm.FindInstance("a")
	if err != nil || !i.Running {
		t.Fatalf("%+v, %v", i, err)
	}
	if err := unix.Kill(i.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := client.New(i).Gone(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.must(exitNoVM, "inspect", "a")
	if r := h.must(0, "ps", "-a"); !strings.Contains(r.stdout, "dead (its process was killed") {
		t.Errorf("ps -a: %s", r.stdout)
	}
	if r := h.must(0, "ps", "--clean", "-q"); r.stdout != "a\n" {
		t.Errorf("ps --clean lists %q", r.stdout)
	}
	if left, err := os.ReadDir(h.root); err != nil || len(left) > 0 {
		t.Errorf("it has left %v, %v", left, err)
	}
	h.must(0, "run", "--name", "a", "-m", "128M", "--detach")
	if r := h.must(0, "ps", "--clean", "-q"); r.stdout != "" {
		t.Errorf("ps --clean lists %q, which runs", r.stdout)
	}
	if i, err = vmm.FindInstance("a"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Kill(i.PID, unix.SIGKILL), client.New(i).Gone(t.Context())); err != nil {
		t.Fatal(err)
	}
	if r := h.must(exitNoVM, "wait", "a"); !strings.Contains(r.stderr, "without a word") {
		t.Errorf("wait: %s", r.stderr)
	}
	h.must(0, "run", "--name", "a", "-m", "128M", "--detach")
	h.must(0, "stop", "a", "--force")
}
