package tiny_test

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"microvm/kvm"
)

// run is the life of CPU i: until the guest ends, or stop is called.
func (m *machine) run(i int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	m.threads[i].Store(int32(unix.Gettid()))
	defer m.threads[i].Store(0)
	for {
		select {
		case <-m.stopping:
			return
		default:
		}
		reason, err := m.cpus[i].Run()
		end := ""
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
		case err != nil:
			end = err.Error()
		case reason == kvm.ExitIO:
			end = m.port(m.cpus[i].IO())
		default:
			end = reason.String()
		}
		if end != "" {
			m.ending <- end
			return
		}
	}
}

// stop takes every CPU out of the guest and waits for it.
func (m *machine) stop() {
	close(m.stopping)
	for i, cpu := range m.cpus {
		cpu.SetImmediateExit(true)
		if tid := m.threads[i].Load(); tid != 0 {
			unix.Tgkill(os.Getpid(), int(tid), unix.SIGURG) // ESRCH: it has just ended
		}
	}
	m.running.Wait()
}

// port serves an access to a port and says how it ends the guest, if it does.
func (m *machine) port(e kvm.IOExit) string {
	switch {
	case e.Port == 0x3f8 && e.Write:
		m.print(e.Data[0])
	case e.Port == 0x3f8:
		e.Data[0] = <-m.typed
	case e.Port == 0x3fd: // line status: transmitter empty, data ready
		e.Data[0] = 0x60
		if len(m.typed) > 0 {
			e.Data[0] |= 1
		}
	case e.Port == 0x604 && e.Write && string(e.Data) == "\x00\x34":
		return "poweroff"
	case e.Port == 0x64 && e.Write && e.Data[0] == 0xfe:
		return "reboot"
	case e.Port == 0x505 && e.Write && e.Data[0] == 1:
		return "panic"
	}
	return ""
}

// print takes a byte from the serial port.
func (m *machine) print(b byte) {
	m.output.Lock()
	defer m.output.Unlock()
	m.line = append(m.line, b)
	if b == '\n' {
		select {
		case m.lines <- strings.Trim(string(m.line), "\x01\r\n"): // 1 is the baud rate divisor
		case <-m.stopping:
		}
		m.line = m.line[:0]
	}
}

// await returns the first line from now on that begins with prefix, and fails at a BAD or PANIC line, unless that is
// what it waits for.
func (m *machine) await(prefix string) string {
	m.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line := <-m.lines:
			m.t.Log(line)
			if strings.HasPrefix(line, prefix) {
				return line
			}
			for _, trouble := range []string{"BAD", "PANIC"} {
				if strings.HasPrefix(line, trouble) && !strings.HasPrefix(prefix, trouble) {
					m.t.Fatalf("the guest says %q, want %q", line, prefix)
				}
			}
		case end := <-m.ending:
			m.t.Fatalf("the guest ended by %s before it said %q", end, prefix)
		case <-timeout:
			m.t.Fatalf("the guest did not say %q in %v", prefix, patience)
		}
	}
}

// awaitEnd fails unless the guest ends in the given way.
func (m *machine) awaitEnd(want string) {
	m.t.Helper()
	select {
	case got := <-m.ending:
		if got != want {
			m.t.Errorf("the guest ended by %s, want %s", got, want)
		}
	case <-time.After(patience):
		m.t.Fatalf("the guest did not end in %v", patience)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
