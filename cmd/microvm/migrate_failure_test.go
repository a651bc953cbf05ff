package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"microvm/migration"
	"microvm/vmm"
)

// stays checks that a VM is where it was, unharmed, and that all may be done
// to it that may be done to a VM.
func (h *host) stays(p *process, name string) {
	h.t.Helper()
	p.runs()
	p.goesOn(3)
	if got := h.state(name); got != "running" {
		h.t.Errorf("VM %s is %q", name, got)
	}
	h.must(0, "pause", name)
	h.must(0, "resume", name)
	p.goesOn(1)
	checkScreen(h.t, screens(p))
}

// canStillMove moves a VM to a new destination, and ends it there.
func (h *host) canStillMove(p *process, name string) {
	h.t.Helper()
	dest, addr := h.receive("--name", name+"-moved")
	r := h.migrate(name, addr)
	if r.Result != migration.ResultCompleted || r.Verified == nil || !*r.Verified {
		h.t.Errorf("report: %+v", r)
	}
	h.endsThere(p, dest, name+"-moved")
}

// awaitMigrating returns when a migration of a VM has begun.
func (h *host) awaitMigrating(name string) {
	h.t.Helper()
	for late := time.Now().Add(patience); ; {
		info, err := h.inspect(name)
		if err != nil {
			h.t.Fatal(err)
		}
		if info.Migrating {
			return
		}
		if time.Now().After(late) {
			h.t.Fatalf("VM %s does not begin to migrate", name)
		}
	}
}

func TestNobodyAtTheDestination(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", busy)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	for _, addr := range []string{migration.ListenAddress(ln).String(), "unix:" + filepath.Join(h.root, "nobody.sock")} {
		r := h.must(exitStays, "migrate", "a", addr, "--postcopy", "--report", "json")
		if !strings.Contains(r.stderr, addr) || !strings.Contains(r.stderr, "is `microvm receive` running there?") {
			t.Errorf("stderr says: %s", r.stderr)
		}
		if report := readReport(t, r.stdout); report.Result != migration.ResultFailed || report.Owner != migration.OwnerSource || report.Error == "" || report.Verified != nil {
			t.Errorf("report: %+v", report)
		}
	}
	for _, addr := range []string{"127.0.0.1:1", "tcp:127.0.0.1", "unix:", "unix:/" + strings.Repeat("x", 108), ""} {
		h.must(exitUsage, "migrate", "a", addr, "--postcopy")
	}
	h.must(exitUsage, "migrate", "a", "tcp:127.0.0.1:1") // does not say how
	h.must(exitNoVM, "migrate", "nobody", "tcp:127.0.0.1:1", "--postcopy")
	h.stays(source, "a")
}

// The VM asks for more memory than the destination's process may have.
func TestTooLittleMemoryAtTheDestination(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", "fill=0 beat=100", "-m", "2G")
	dest, addr := h.receive("--name", "b")
	// Room for all that the process itself may still map: under -race that is a lot.
	limit := uint64(mappedBytes(t, dest.cmd.Process.Pid) + 1536<<20)
	if err := unix.Prlimit(dest.cmd.Process.Pid, unix.RLIMIT_AS, &unix.Rlimit{Cur: limit, Max: limit}, nil); err != nil {
		t.Fatal(err)
	}
	r := h.must(exitRefused, "migrate", "a", addr, "--postcopy")
	if !strings.Contains(r.stderr, strconv.Itoa(2<<30)) && !strings.Contains(r.stderr, "2048 MiB") && !strings.Contains(r.stderr, "2 GiB") {
		t.Errorf("stderr does not say how much memory it takes: %s", r.stderr)
	}
	dest.wait(exitFailure)
	if got := h.must(0, "ps", "-a", "-q").stdout; got != "a\n" {
		t.Errorf("ps lists %q", got)
	}
	h.stays(source, "a")
}

// mappedBytes is the size of a process's address space.
func mappedBytes(t *testing.T, pid int) int {
	t.Helper()
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(statm))[0])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func TestANameThatIsTakenAtTheDestination(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", busy)
	// Only the migration brings the name.
	dest, addr := h.receive()
	r := h.must(exitRefused, "migrate", "a", addr, "--postcopy")
	if want := vmm.ErrNameTaken.Error(); !strings.Contains(r.stderr, want) {
		t.Errorf("stderr lacks %q: %s", want, r.stderr)
	}
	dest.wait(exitFailure)
	// It is known beforehand.
	if r := h.must(exitFailure, "receive", "--listen", "tcp:127.0.0.1:0", "--name", "a"); !strings.Contains(r.stderr, vmm.ErrNameTaken.Error()) || r.stdout != "" {
		t.Errorf("receive prints %q and says %q", r.stdout, r.stderr)
	}
	h.stays(source, "a")
	h.canStillMove(source, "a")
}

func TestADestinationThatIsNoMicrovm(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", busy)
	// Its own API: to move to oneself.
	api := "unix:" + filepath.Join(h.root, "a", "api.sock")
	if r := h.must(exitStays, "migrate", "a", api, "--postcopy"); !strings.Contains(r.stderr, "the peer is no microvm") {
		t.Errorf("stderr says: %s", r.stderr)
	}
	h.stays(source, "a")
	// A VM that is on its way in cannot go out, to itself or elsewhere.
	dest, addr := h.receive("--name", "b")
	if r := h.must(exitRefused, "migrate", "b", addr, "--postcopy"); !strings.Contains(r.stderr, "not arrived") {
		t.Errorf("stderr says: %s", r.stderr)
	}
	relay := newRelay(t, addr, "COMPLETE", 0)
	migrate := h.start("migrate", "a", relay.addr, "--postcopy")
	relay.awaitHeld()
	if r := h.must(exitRefused, "migrate", "b", "tcp:127.0.0.1:1", "--postcopy"); !strings.Contains(r.stderr, "postcopy") {
		t.Errorf("stderr says: %s", r.stderr)
	}
	relay.letPass()
	migrate.wait(0)
	source.wait(0)
	dest.goesOn(3)
}

func TestOnlyOneMigrationAtATime(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", busy)
	other := h.boot("z", busy)
	dest, addr := h.receive("--name", "b")
	_, elsewhere := h.receive("--name", "c")
	relay := newRelay(t, addr, "PACKAGED", 0)
	migrate := h.start("migrate", "a", relay.addr, "--postcopy")
	relay.awaitHeld()
	for _, command := range [][]string{{"migrate", "a", elsewhere, "--postcopy"}, {"pause", "a"}, {"resume", "a"}} {
		status := exitFailure
		if command[0] == "migrate" {
			status = exitRefused
		}
		if r := h.must(status, command...); !strings.Contains(r.stderr, "a migration of it is under way") {
			t.Errorf("%s: stderr says: %s", command[0], r.stderr)
		}
	}
	// Nor may a second VM come to the same destination.
	if r := h.must(exitRefused, "migrate", "z", addr, "--postcopy"); !strings.Contains(r.stderr, "a migration is under way here already") {
		t.Errorf("stderr says: %s", r.stderr)
	}
	h.stays(other, "z")
	relay.letPass()
	migrate.wait(0)
	source.wait(0)
	dest.goesOn(3)
	checkScreen(t, screens(source, dest))
}

// beforeRun are messages in the middle of each step that comes before
// POSTCOPY_RUN: while one of them is held, the other side waits for it.
var beforeRun = []string{"CONFIG", "POSTCOPY_ADVISE", "PONG", "PACKAGED", "LOADED"}

func TestReceiveGivesUp(t *testing.T) {
	h := newHost(t)
	needKVM(t)
	if r := h.must(exitTimeout, "receive", "--listen", "tcp:127.0.0.1:0", "--timeout", "300ms", "--name", "b"); !strings.Contains(r.stderr, "300ms") {
		t.Errorf("stderr says: %s", r.stderr)
	}
	dest, _ := h.receive("--name", "b")
	dest.signal(unix.SIGTERM)
	dest.wait(exitFailure)
	// The same in the middle of a migration.
	source := h.boot("a", busy)
	for _, how := range []string{"timeout", "signal"} {
		flags := []string{"--name", "b"}
		if how == "timeout" {
			flags = append(flags, "--timeout", "3s")
		}
		dest, addr := h.receive(flags...)
		relay := newRelay(t, addr, "PACKAGED", 0)
		migrate := h.start("migrate", "a", relay.addr, "--postcopy")
		relay.awaitHeld()
		if how == "signal" {
			dest.signal(unix.SIGTERM)
			dest.wait(exitFailure)
		} else {
			dest.wait(exitTimeout)
		}
		relay.letPass()
		migrate.wait(exitStays)
		h.stays(source, "a")
	}
	if got := h.must(0, "ps", "-a", "-q").stdout; got != "a\n" {
		t.Errorf("ps lists %q", got)
	}
}

// stuck gives two migrations of VM a that do not get ahead: a destination that
// does nothing at all, and one that has all but the word to run. The guest
// runs through the first and is paused in the second.
func stuck(t *testing.T, test func(h *host, source *process, migrate func(flags ...string) *process)) {
	for _, message := range []string{"", "PACKAGED", "LOADED"} {
		t.Run("before "+message, func(t *testing.T) {
			h := newHost(t)
			source := h.boot("a", busy)
			dest, addr := h.receive("--name", "b", "--recover", "1s")
			if message == "" {
				dest.signal(unix.SIGSTOP)
				test(h, source, func(flags ...string) *process {
					p := h.start(append([]string{"migrate", "a", addr, "--postcopy", "--report", "json"}, flags...)...)
					h.awaitMigrating("a")
					return p
				})
				return
			}
			relay := newRelay(t, addr, message, 0)
			test(h, source, func(flags ...string) *process {
				p := h.start(append([]string{"migrate", "a", relay.addr, "--postcopy", "--report", "json"}, flags...)...)
				relay.awaitHeld()
				return p
			})
			relay.letPass()
			dest.wait(exitFailure) // it is told, or finds the connection closed
			if text := screens(dest); text != "" {
				t.Errorf("the guest ran at the destination: %q", text)
			}
			h.canStillMove(source, "a")
		})
	}
}

func TestAMigrationThatTakesTooLong(t *testing.T) {
	stuck(t, func(h *host, source *process, migrate func(...string) *process) {
		m := migrate("--timeout", "2s")
		m.wait(exitTimeout)
		if r := readReport(h.t, m.stdout.String()); r.Result != migration.ResultFailed || r.Owner != migration.OwnerSource || !strings.Contains(r.Error, "2s") {
			h.t.Errorf("report: %+v", r)
		}
		h.stays(source, "a")
	})
}

func TestAMigrationThatIsCancelled(t *testing.T) {
	for _, how := range []string{"by command", "by Ctrl-C"} {
		t.Run(how, func(t *testing.T) {
			stuck(t, func(h *host, source *process, migrate func(...string) *process) {
				m := migrate()
				if how == "by command" {
					h.must(0, "migrate-cancel", "a")
				} else {
					m.signal(unix.SIGINT)
				}
				m.wait(exitStays)
				if r := readReport(h.t, m.stdout.String()); r.Result != migration.ResultCancelled || r.Owner != migration.OwnerSource {
					h.t.Errorf("report: %+v", r)
				}
				if r := h.must(0, "migrate-status", "a"); !strings.Contains(r.stdout, "cancelled") {
					h.t.Errorf("migrate-status says %s", r.stdout)
				}
				h.stays(source, "a")
			})
		})
	}
}

func TestAfterRunThereIsNoWayBack(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", busy)
	if r := h.must(exitFailure, "migrate-cancel", "a"); !strings.Contains(r.stderr, "no migration") {
		t.Errorf("without a migration: %s", r.stderr)
	}
	dest, addr := h.receive("--name", "b")
	relay := newRelay(t, addr, "COMPLETE", 0)
	migrate := h.start("migrate", "a", relay.addr, "--postcopy")
	relay.awaitHeld()
	for _, c := range []struct{ args, want string }{
		{"migrate-cancel a", "runs at the destination already"},
		{"pause a", "a migration of it is under way"},
		{"resume a", "a migration of it is under way"},
		{"stop a --force", "it is postcopy"},
		{"stop b --force", "it is postcopy"},
	} {
		if r := h.must(exitFailure, strings.Fields(c.args)...); !strings.Contains(r.stderr, c.want) {
			t.Errorf("%s: %s", c.args, r.stderr)
		}
	}
	// A signal ends neither side while part of the guest is on the other.
	source.signal(unix.SIGTERM)
	dest.signal(unix.SIGTERM)
	dest.goesOn(3)
	// Ctrl-C leaves the migration to itself.
	migrate.signal(unix.SIGINT)
	migrate.wait(0)
	if !strings.Contains(migrate.stderr.String(), "microvm migrate-status a") {
		t.Errorf("migrate says: %s", migrate.stderr)
	}
	source.runs()
	relay.letPass()
	source.wait(0)
	dest.goesOn(3)
	checkScreen(t, screens(source, dest))
}

func TestAConnectionThatBreaksAfterRunIsOpenedAgain(t *testing.T) {
	for _, message := range []string{"POSTCOPY_RUN", "RUNNING", "RAM", "CHECKSUMS", "COMPLETE"} {
		t.Run("before "+message, func(t *testing.T) {
			h := newHost(t)
			source := h.boot("a", busy)
			dest, addr := h.receive("--name", "b")
			relay := newRelay(t, addr, message, 0)
			migrate := h.start("migrate", "a", relay.addr, "--postcopy", "--verify", "--report", "json")
			relay.awaitHeld()
			relay.cut()
			relay.letPass()
			migrate.wait(0)
			r := readReport(t, migrate.stdout.String())
			if r.Result != migration.ResultCompleted || r.Verified == nil || !*r.Verified || r.Recoveries == 0 {
				t.Errorf("report: %+v", r)
			}
			h.endsThere(source, dest, "b")
		})
	}
}

func TestStrangersAtTheListenerDisturbNothing(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", busy)
	dest, addr := h.receive("--name", "b")
	for _, words := range []string{
		"",
		"GET / HTTP/1.1\r\nHost: microvm\r\n\r\n",
		strings.Repeat("\xff", 1<<16),
		strings.Repeat("\x00", 1<<16),
		"microvm\n",
		"microvm\n" + strings.Repeat("\xff", 1<<10),
		"microvm\n\x00\x01\x00\x01" + strings.Repeat("x", 16) + "\x07\x00\x00\x00", // a role that there is not
		"microvm\n\x00\x01\x00\x01" + strings.Repeat("x", 16) + "\x02\x00\x00\x00", // an urgent channel alone
		"microvm\n\x00\x63\x00\x63" + strings.Repeat("x", 16) + "\x01\x00\x00\x00", // from the future
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(addr, "tcp:"))
		if err != nil {
			t.Fatal(err)
		}
		// It may be closed to us before all is said.
		_, _ = io.WriteString(conn, words)
		_ = conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
	}
	silent, err := net.Dial("tcp", strings.TrimPrefix(addr, "tcp:"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() // one that says nothing stays all the while
	checkCompleted(t, h.migrate("a", addr), 256<<20, 2)
	source.wait(0)
	dest.goesOn(3)
	checkScreen(t, screens(source, dest))
}
