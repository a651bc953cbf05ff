package main

import (
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"microvm/migration"
	"microvm/vmm"
)

// onTerminal starts a process on a terminal of its own, and gives what it shows.
func (h *host) onTerminal(columns, rows uint16, args ...string) (p *process, shown *transcript) {
	h.t.Helper()
	master, tty := openTerminal(h.t, columns, rows)
	shown = newTranscript()
	go func() { _, _ = io.Copy(shown, master) }() // it ends with the terminal
	p = &process{t: h.t, h: h, cmd: h.command(args...), stdin: master, stdout: shown, stderr: shown, ended: make(chan struct{}), patience: patience}
	p.cmd.Env = append(p.cmd.Env, vmm.StateDirEnv+"="+h.root, "TERM=xterm", "NO_COLOR=")
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = tty, tty, tty
	p.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: unix.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the status is in ProcessState
		close(p.ended)
	}()
	h.t.Cleanup(p.kill)
	return p, shown
}

// press types a key on the terminal of a process that onTerminal has started.
func (p *process) press(key string) {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, key); err != nil {
		p.t.Fatal(err)
	}
}

var (
	escapes = regexp.MustCompile("\x1b\\[[0-9;?]*[A-Za-z]")
	logged  = regexp.MustCompile(`^(time=|logged$)`)
)

// checkWidth wants no line of a terminal to be wider than it, or it would wrap;
// but for what is logged.
func checkWidth(t *testing.T, shown string, columns int) {
	t.Helper()
	for _, line := range regexp.MustCompile(`[\r\n]+`).Split(shown, -1) {
		if text := escapes.ReplaceAllString(line, ""); !logged.MatchString(text) && utf8.RuneCountInString(text) > columns {
			t.Errorf("%d columns in a terminal of %d: %q", utf8.RuneCountInString(text), columns, text)
		}
	}
}

// TestTheLiveLineStaysOneLine on a terminal of any width, is gone at the end, and
// what is logged meanwhile stands above it.
func TestTheLiveLineStaysOneLine(t *testing.T) {
	for _, columns := range []uint16{80, 50, 24, 5} {
		master, tty := openTerminal(t, columns, 24)
		shown := newTranscript()
		go func() { _, _ = io.Copy(shown, master) }()
		p := &liveProgress{terminal: tty}
		for i := range uint64(20) {
			p.update(migration.Status{
				Phase: migration.PhasePostcopyActive, ElapsedNS: int64(i) * int64(200*time.Millisecond), PagesTotal: 1 << 30, PagesLeft: 1<<20 - i<<12,
				BytesWire: i << 30, Faults: i * 1000, P99NS: 123456, Throttle: 99,
			})
		}
		if _, err := io.WriteString(p, "logged\n"); err != nil {
			t.Fatal(err)
		}
		p.end()
		if _, err := io.WriteString(tty, "end"); err != nil {
			t.Fatal(err)
		}
		late := time.After(patience)
		for text, more := shown.read(); !strings.HasSuffix(text, clearLine+"end"); text, more = shown.read() {
			select {
			case <-more:
			case <-late:
				t.Fatalf("it does not end with an empty line: %q", text)
			}
		}
		text := shown.String()
		checkWidth(t, text, int(columns)-1)
		if strings.Count(text, "\n") != 1 || !strings.Contains(text, clearLine+"logged\r\n") {
			t.Errorf("%q", text)
		}
		if columns == 80 {
			for _, want := range []string{"postcopy-active", "3.7 GiB, 47s left", "5.0 GiB/s", "5000 faults/s", "p99 123µs"} {
				if !strings.Contains(text, want) {
					t.Errorf("%q is not in %q", want, text[strings.LastIndex(text, clearLine+"p"):])
				}
			}
		}
	}
}

// TestRatesAreOverAWindow: a tick without a byte does not make the rate 0, nor do
// the bytes of an hour ago count.
func TestRatesAreOverAWindow(t *testing.T) {
	var p pace
	line := ""
	for i := range uint64(30) {
		s := migration.Status{ElapsedNS: int64(i) * int64(200*time.Millisecond), BytesWire: i / 2 * 2 << 20, PagesLeft: 1000 - i}
		line = p.line(s, 0)
	}
	if !strings.Contains(line, "5.0 MiB/s") || len(p.past) > 12 {
		t.Errorf("%q, from %d statuses", line, len(p.past))
	}
}

// TestColoursAreForTerminalsOfWhoWantsThem: https://no-color.org.
func TestColoursAreForTerminalsOfWhoWantsThem(t *testing.T) {
	_, tty := openTerminal(t, 80, 24)
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	if got := paintFor(tty).good("ok"); got != "\x1b[32mok\x1b[0m" {
		t.Errorf("on a terminal: %q", got)
	}
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if got := paintFor(file).good("ok") + paintFor(new(strings.Builder)).bad("no"); got != "okno" {
		t.Errorf("elsewhere: %q", got)
	}
	t.Setenv("NO_COLOR", "1")
	if got := paintFor(tty).good("ok"); got != "ok" {
		t.Errorf("with NO_COLOR: %q", got)
	}
}

// TestWhoArrivesIsShownOnATerminal: one line while the VM comes, none after, and
// whoever watches it leave can stop watching.
func TestWhoArrivesIsShownOnATerminal(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", busy, "-m", "128M")
	stats, table := h.onTerminal(80, 24, "stats", "a", "--watch")
	stats.awaitOutput("/S")
	dest, shown := h.onTerminal(80, 24, "receive", "--listen", "unix:"+h.root+"/in", "--name", "b", "--console", "off")
	dest.awaitOutput("unix:")
	mover := h.start("migrate", "a", "unix:"+h.root+"/in", "--postcopy", "--postcopy-bandwidth", "60M")
	dest.awaitOutput("faults/s")
	watch, line := h.onTerminal(60, 24, "migrate-status", "a", "--watch")
	watch.awaitOutput("left")
	stats.press("\x03")
	stats.wait(0)
	watch.press("\x03")
	watch.wait(exitInterrupted)
	mover.wait(0)
	source.wait(0)
	gone := regexp.MustCompile(`\r\x1b\[K(time=[^\n]*\n)*$`)
	dest.await("the line gone", gone.MatchString)
	h.must(0, "stop", "b", "--force")
	dest.wait(0)
	checkWidth(t, table.String(), 80)
	checkWidth(t, shown.String(), 79)
	checkWidth(t, line.String(), 59)
	if text := table.String(); strings.Count(text, "\x1b[J") < 3 || strings.Contains(text, "\x1b[2J") {
		t.Errorf("stats --watch: %q", text)
	}
}
