package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"microvm/vmm"
	"microvm/vmm/client"
)

// A notifier tells the service manager that started this process how it goes:
// sd_notify(3), a datagram of NAME=VALUE lines to the socket in NOTIFY_SOCKET. The
// socket is connected once, at the beginning, so that it is there for a process
// that has given up files and system calls since. nil is for nobody.
type notifier struct {
	conn net.Conn
	// watchdog is how often a sign of life has to come, 0 if never.
	watchdog time.Duration
	// ending is since when the process is to end, in ns of Unix's time, 0 if it is
	// not.
	ending atomic.Int64
}

// newNotifier reads the environment and clears it, so that nobody else who is
// started from here takes it for theirs.
func newNotifier() *notifier {
	path := os.Getenv("NOTIFY_SOCKET")
	watchdog := watchdogTime()
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		os.Unsetenv(name)
	}
	if path == "" {
		return nil
	}
	// net takes a path that begins with @ for an abstract one, as sd_notify does.
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		slog.Warn("the service manager cannot be told how it goes", "NOTIFY_SOCKET", path, "err", err)
		return nil
	}
	return &notifier{conn: conn, watchdog: watchdog}
}

// watchdogTime is what WATCHDOG_USEC says, if it is meant for this process.
func watchdogTime() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || us <= 0 || us > int64(24*time.Hour/time.Microsecond) {
		return 0
	}
	return time.Duration(us) * time.Microsecond
}

// say sends lines of NAME=VALUE.
func (n *notifier) say(lines ...string) {
	if n == nil {
		return
	}
	// One that does not read is not to hold the VM up.
	err := n.conn.SetWriteDeadline(time.Now().Add(sayTime))
	if err == nil {
		_, err = n.conn.Write([]byte(strings.Join(lines, "\n")))
	}
	if err != nil {
		slog.Warn("the service manager does not hear how it goes", "err", err)
	}
}

// ready says that what was asked for is there.
func (n *notifier) ready(status string) { n.say("READY=1", "STATUS="+status) }

// toEnd notes that the process has been asked to end.
func (n *notifier) toEnd() {
	if n != nil {
		n.ending.CompareAndSwap(0, time.Now().UnixNano())
	}
}

// stopping says that the process is about to end.
func (n *notifier) stopping(status string) { n.say("STOPPING=1", "STATUS="+status) }

// extend asks for more time, from now on.
func (n *notifier) extend(time time.Duration) { n.say(extendLine(time)) }

func extendLine(time time.Duration) string {
	return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", time.Microseconds())
}

const (
	// statusEvery is how often the status is brought up to date.
	statusEvery = time.Second
	// sayTime is how long the service manager may take to hear something.
	sayTime = time.Second
	// extension is how much longer a service that is to end may take while its
	// VM is between two hosts, and maxExtensions for how long that is asked for.
	extension     = 30 * time.Second
	maxExtensions = 10 * time.Minute
)

// A vmStatus is how a VM does, for a service manager.
type vmStatus struct {
	text string
	// between: memory of it is on two hosts, and on its way. To end the process
	// now would lose the VM.
	between bool
}

// follow tells how it goes until ctx ends. ask says how; it is also what the
// watchdog's signs of life depend on.
func (n *notifier) follow(ctx context.Context, ask func(context.Context) (vmStatus, error)) {
	if n == nil {
		return
	}
	every := statusEvery
	if n.watchdog > 0 {
		every = min(every, n.watchdog/3)
	}
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		last := ""
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			asking, cancel := context.WithTimeout(ctx, max(every, askTime))
			status, err := ask(asking)
			cancel()
			if err != nil {
				continue // no sign of life
			}
			var lines []string
			if n.watchdog > 0 {
				lines = append(lines, "WATCHDOG=1")
			}
			if status.text != last {
				lines = append(lines, "STATUS="+status.text)
				last = status.text
			}
			if since := n.ending.Load(); status.between && since != 0 && time.Since(time.Unix(0, since)) < maxExtensions {
				lines = append(lines, extendLine(extension))
			}
			if lines != nil {
				n.say(lines...)
			}
		}
	}()
}

// askVM asks a VM's own API, by its socket as anybody would: that it answers is
// what a watchdog wants to know.
func askVM(c *client.Client, arriving func() string) func(context.Context) (vmStatus, error) {
	return func(ctx context.Context) (vmStatus, error) {
		info, err := c.Info(ctx)
		if err != nil {
			return vmStatus{}, err
		}
		s := vmStatus{text: info.State.String()}
		if info.State == vmm.StatePostcopy && !info.Migrating {
			s.between = true
			if how := arriving(); how != "" {
				s.text = how
			}
			return s, nil
		}
		if !info.Migrating {
			return s, nil
		}
		e, err := c.Migration(ctx)
		if err != nil || e.Report != nil {
			return s, nil // it has ended since
		}
		s.between = info.State == vmm.StatePostcopy
		s.text = fmt.Sprintf("%v, migrating: %s, %s left", info.State, e.Status.Phase, bytesText(e.Status.PagesLeft*pageSize))
		return s, nil
	}
}
