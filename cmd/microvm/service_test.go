package main

import (
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"microvm/migration"
	"microvm/vmm"
)

// A manager is a service manager's end of NOTIFY_SOCKET.
type manager struct {
	t     *testing.T
	path  string
	heard *transcript // lines
	read  int         // how much of it await has seen
}

func newManager(t *testing.T, path string) *manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	m := &manager{t: t, path: path, heard: newTranscript()}
	go func() {
		for b := make([]byte, 4096); ; {
			n, err := conn.Read(b)
			if err != nil {
				return // closed
			}
			_, _ = m.heard.Write(append(b[:n:n], '\n')) // it takes all
		}
	}()
	return m
}

// said is whether a line that begins so has come.
func (m *manager) said(prefix string) bool {
	return strings.Contains("\n"+m.heard.String(), "\n"+prefix)
}

// await returns when a line that begins so has come since the last that was awaited.
func (m *manager) await(prefix string) {
	m.t.Helper()
	late := time.After(patience)
	for {
		text, more := m.heard.read()
		if at := strings.Index("\n"+text[m.read:], "\n"+prefix); at >= 0 {
			m.read += at + len(prefix)
			return
		}
		select {
		case <-more:
		case <-late:
			m.t.Fatalf("no %s; it said %q", prefix, text)
		}
	}
}

// startFor starts a process for a service manager.
func (h *host) startFor(m *manager, args ...string) *process {
	h.t.Helper()
	h.t.Setenv("NOTIFY_SOCKET", m.path)
	defer os.Unsetenv("NOTIFY_SOCKET")
	return h.start(args...)
}

// A service manager hears when the VM runs, that it lives, what it does, and that
// it ends; its SIGTERM gives the guest time to power off, and ends one that does
// not know how.
func TestAServiceManagerHearsHowAVMDoes(t *testing.T) {
	needKVM(t)
	h := newHost(t)
	t.Setenv("WATCHDOG_USEC", "60000")
	m := newManager(t, filepath.Join(h.root, "notify"))
	vm := h.startFor(m, "run", "--name", "a", "-m", "128M", "-p", "beat=50", "--console", "socket", "--stop-timeout", "50ms", "--log-format", "json")
	m.await("READY=1")
	if i, err := vmm.FindInstance("a"); err != nil || !i.Running {
		t.Errorf("it is ready: %+v, %v", i, err)
	}
	m.await("WATCHDOG=1")
	if !m.said("STATUS=running") {
		t.Errorf("it said %q", m.heard)
	}
	h.must(0, "pause", "a")
	m.await("STATUS=paused")
	h.must(0, "resume", "a")
	m.await("STATUS=running")
	vm.signal(unix.SIGTERM)
	m.await("STOPPING=1")
	vm.wait(0)
	if log := vm.stderr.String(); !strings.Contains(log, `"msg":"the guest has not powered off, its power is cut","vm":"a"`) {
		t.Errorf("its log is %s", log)
	}
	if m.said("EXTEND_TIMEOUT_USEC") {
		t.Errorf("it asks for more time: %q", m.heard)
	}
}

// A destination is ready when a VM can come, also by a socket that the service
// manager has opened, and on an abstract notification socket.
func TestADestinationIsReadyWhenAVMCanCome(t *testing.T) {
	h := newHost(t)
	m := newManager(t, "@"+h.root+"/notify")
	dest := h.startFor(m, "receive", "--listen", "tcp:127.0.0.1:0", "--name", "b", "--console", "socket")
	addr := dest.awaitLine("tcp:")
	m.await("READY=1")
	if want := "STATUS=waits for a VM at " + addr; !m.said(want) {
		t.Errorf("it said %q, want %q", m.heard, want)
	}
	dest.signal(unix.SIGTERM)
	m.await("STOPPING=1")
	dest.wait(exitFailure)

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	socket, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	var said strings.Builder
	passed := h.command()
	// A service manager says in the environment whom it passes a socket.
	passed.Path, passed.Args = "/bin/sh", []string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" receive --timeout 1ms`, os.Args[0]}
	passed.ExtraFiles, passed.Stdout = []*os.File{socket}, &said
	if err := passed.Run(); passed.ProcessState.ExitCode() != exitTimeout || said.String() != migration.ListenAddress(ln).String()+"\n" {
		t.Errorf("it listens on %q (%v), want %s", &said, err, migration.ListenAddress(ln))
	}
}

// A watchdog ends a VM that hangs by SIGABRT. That it died of it is no exit status,
// above all not the one of a config that makes no sense, after which the units let
// it be; where it was is in its log.
func TestAVMThatItsWatchdogEndsIsNotTakenForAUsageError(t *testing.T) {
	h := newHost(t)
	vm := h.boot("a", busy, "-m", "128M")
	vm.signal(unix.SIGABRT)
	select {
	case <-vm.ended:
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if status := vm.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != unix.SIGABRT {
		t.Errorf("it ended with %v", vm.cmd.ProcessState)
	}
	if log := vm.stderr.String(); !strings.Contains(log, "goroutine 1 ") {
		t.Errorf("it says %s", tail(log))
	}
}

// A service manager that wants to end the two processes between which a VM is waits
// for the VM to be whole: nothing is lost, and both end.
func TestAVMBetweenTwoHostsIsNotEndedByItsServiceManagers(t *testing.T) {
	h := newHost(t)
	t.Setenv("WATCHDOG_USEC", "60000")
	there := newManager(t, filepath.Join(h.root, "there"))
	dest := h.startFor(there, "receive", "--listen", "tcp:127.0.0.1:0", "--name", "b", "--stop-timeout", "50ms")
	addr := dest.awaitLine("tcp:")
	here := newManager(t, filepath.Join(h.root, "here"))
	t.Setenv("NOTIFY_SOCKET", here.path)
	source := h.boot("a", busy, "-m", "128M")
	os.Unsetenv("NOTIFY_SOCKET")
	h.must(0, "migrate", "a", addr, "--postcopy", "--postcopy-bandwidth", "100M", "--detach")
	dest.awaitLine("beat ")
	source.signal(unix.SIGTERM)
	dest.signal(unix.SIGTERM)
	here.await("EXTEND_TIMEOUT_USEC=")
	there.await("EXTEND_TIMEOUT_USEC=30000000")
	// The guest has its time to power off all the same, once it is whole.
	there.await("STATUS=the guest powers off")
	there.await("EXTEND_TIMEOUT_USEC=30050000")
	source.wait(0)
	dest.wait(0)
	if !here.said("STATUS=postcopy, migrating: ") || !there.said("STATUS=arriving: ") {
		t.Errorf("the source said %q, the destination %q", here.heard, there.heard)
	}
	checkScreen(t, screens(source, dest))
}

// The service's command line is one that this program understands.
func TestTheUnitsCommandLinesAreUnderstood(t *testing.T) {
	units, err := filepath.Glob("../../hack/release/*.service")
	if err != nil || len(units) == 0 {
		t.Fatalf("no units: %v", err)
	}
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		_, line, found := strings.Cut(string(text), "\nExecStart=/usr/bin/microvm ")
		line, _, _ = strings.Cut(line, "\n")
		args := strings.Fields(line)
		if !found || len(args) == 0 || find(args[0]) == nil {
			t.Fatalf("%s: ExecStart is %q", unit, line)
		}
		flags, _ := find(args[0]).flagSet()
		if err := flags.Parse(args[1:]); err != nil {
			t.Errorf("%s: %v", unit, err)
		}
		// systemd complains of a variable at each start, if nobody gives it a value.
		if !strings.Contains(string(text), " MICROVM_OPTIONS=\n") {
			t.Errorf("%s: MICROVM_OPTIONS has no value where no file has one", unit)
		}
		// What systemd takes out before: variables.
		if rest := slices.DeleteFunc(flags.Args(), func(arg string) bool { return strings.HasPrefix(arg, "$") }); len(rest) > 0 {
			t.Errorf("%s: %q is left", unit, rest)
		}
		flags.Visit(func(f *pflag.Flag) {
			if f.Deprecated != "" {
				t.Errorf("%s: --%s: %s", unit, f.Name, f.Deprecated)
			}
		})
	}
}

// A group that is given the VM's sockets can use it, and nobody else can.
func TestAGroupMayUseAVMThatIsSharedWithIt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs another user and a group that this one is not in: run as root")
	}
	h := newHost(t)
	const group, member, stranger = 61001, 61002, 61003
	if err := os.Chmod(h.root, 0o700); err != nil {
		t.Fatal(err)
	}
	args := []string{"receive", "--listen", "tcp:127.0.0.1:0", "--name", "a", "--console", "socket", "--socket-group", strconv.Itoa(group)}
	if r := h.must(exitFailure, args...); !strings.Contains(r.stderr, "chmod o+x "+h.root) {
		t.Errorf("the group cannot come by: %s", r.stderr)
	}
	if err := os.Chmod(h.root, 0o755); err != nil {
		t.Fatal(err)
	}
	h.start(args...).awaitLine("tcp:")
	// This program is where only its owner may be.
	program := filepath.Join(h.root, "microvm.test")
	if err := exec.Command("cp", os.Args[0], program).Run(); err != nil {
		t.Fatal(err)
	}
	as := func(uid, gid uint32, args ...string) (string, error) {
		cmd := h.command(args...)
		cmd.Path = program
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{gid}}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, args := range [][]string{{"inspect", "a"}, {"ps", "-q"}, {"logs", "a", "--console"}} {
		if out, err := as(member, group, args...); err != nil || len(args[0]) == 2 && out != "a\n" {
			t.Errorf("a member's %q: %v: %s", args, err, out)
		}
	}
	if out, err := as(stranger, stranger, "inspect", "a"); err == nil {
		t.Errorf("a stranger has seen %s", out)
	}
	for path, want := range map[string]fs.FileMode{"a": 0o750, "a/api.sock": 0o660, "a/console.sock": 0o660, "a/pid": 0o640} {
		if st, err := os.Stat(filepath.Join(h.root, path)); err != nil || st.Mode().Perm() != want || st.Sys().(*syscall.Stat_t).Gid != group {
			t.Errorf("%s: %v, %v, want %v of group %d", path, st.Mode(), err, want, group)
		}
	}
	if r := h.must(exitFailure, "receive", "--listen", "tcp:127.0.0.1:0", "--name", "b", "--socket-group", "no-such-group"); !strings.Contains(r.stderr, "groupadd") {
		t.Errorf("no such group: %s", r.stderr)
	}
}

// A VM that was started detached has nothing of whoever started it: no terminal, no
// working directory, no file; and outlives them.
func TestADetachedVMHasNothingOfItsParent(t *testing.T) {
	needKVM(t)
	h := newHost(t)
	terminal, tty := openTerminal(t, 80, 24)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	sh := h.command()
	// A file without close-on-exec, a relative path, and a shell on a terminal that is hung up.
	sh.Path, sh.Args = "/bin/sh", []string{"sh", "-c", `"$1" run --detach --name a -m 128M --config ./a.json 9<a.json && echo started && read line`, "sh", os.Args[0]}
	sh.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(sh.Dir, "a.json"), []byte(`{"cmdline": "beat=50"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	sh.Stdin, sh.Stdout, sh.Stderr, sh.ExtraFiles = tty, tty, tty, []*os.File{w}
	sh.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: unix.SIGKILL}
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	ended := make(chan error, 1)
	go func() { ended <- sh.Wait() }()
	for said := ""; !strings.Contains(said, "started"); {
		var b [1024]byte
		n, err := terminal.Read(b[:])
		if said += string(b[:n]); err != nil {
			t.Fatalf("the shell ended (%v): %s", err, said)
		}
	}
	i, err := vmm.FindInstance("a")
	if err != nil || !i.Running {
		t.Fatalf("%+v, %v", i, err)
	}
	tty.Close()
	terminal.Close() // hangs up
	select {
	case <-ended: // by SIGHUP
	case <-time.After(patience):
		t.Fatal("the shell does not hear that its terminal has gone")
	}
	if _, err := r.Read(make([]byte, 1)); err != io.EOF { // it would wait for whoever has the other end
		t.Error(err)
	}
	proc := fmt.Sprintf("/proc/%d/", i.PID)
	fds, err := os.ReadDir(proc + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, err := os.Readlink(proc + "fd/" + fd.Name())
		if err != nil || strings.HasSuffix(to, "a.json") || strings.HasPrefix(to, "/dev/pts/") || fd.Name() == "0" && to != "/dev/null" {
			t.Errorf("its descriptor %s is %s, %v", fd.Name(), to, err)
		}
	}
	if cwd, err := os.Readlink(proc + "cwd"); cwd != "/" {
		t.Errorf("it is in %s, %v", cwd, err)
	}
	if sid, err := unix.Getsid(i.PID); err != nil || sid != i.PID {
		t.Errorf("its session is %d, %v; it is %d", sid, err, i.PID)
	}
	h.must(0, "stop", "a", "--force")
	if exit := h.must(0, "wait", "a").stdout; exit != "stopped\n" {
		t.Errorf("it ended: %s", exit)
	}
}
