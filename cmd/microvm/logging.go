package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// logOptions are how a VM's process logs. What it prints on stdout is something
// else.
type logOptions struct {
	format string
	level  slog.Level
	// keepLast: stderr is a file that has to be kept from growing.
	keepLast bool
}

func addLogFlags(flags *pflag.FlagSet) *logOptions {
	o := &logOptions{}
	flags.StringVar(&o.format, "log-format", "text", "of the log on stderr: text or json")
	flags.TextVar(&o.level, "log-level", slog.LevelInfo, "what is logged: debug, info, warn or error, and what is worse")
	return o
}

// check refuses what makes no sense.
func (o *logOptions) check() error {
	if o.format != "text" && o.format != "json" {
		return usagef("--log-format %s: has to be text or json", o.format)
	}
	return nil
}

// start has everything logged as the options say. raw is whether stderr is a
// terminal that is going to be in raw mode.
func (o *logOptions) start(raw bool) {
	var w io.Writer = os.Stderr
	if raw {
		w = lineEnds{w}
	}
	if o.keepLast {
		if log, err := newLogFile(os.Stderr, logMost); err == nil {
			w = log
		} else {
			slog.Warn("the log grows without bound", "err", err)
		}
	}
	if toJournal(os.Stderr, os.Getenv("JOURNAL_STREAM")) {
		slog.SetDefault(slog.New(o.journalHandler(w)))
		return
	}
	slog.SetDefault(slog.New(o.handler(w, nil)))
}

func (o *logOptions) handler(w io.Writer, replace func([]string, slog.Attr) slog.Attr) slog.Handler {
	options := &slog.HandlerOptions{Level: o.level, ReplaceAttr: replace}
	if o.format == "json" {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

// toJournal says whether a file is the stream to systemd's journal whose device
// and inode JOURNAL_STREAM has: systemd.exec(5).
func toJournal(f *os.File, stream string) bool {
	var st unix.Stat_t
	if stream == "" || unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	return stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// A journalHandler writes lines for the journal: it has the time already, and the
// level is the number of a priority in front, as in sd-daemon(3).
type journalHandler struct{ byLevel [4]slog.Handler }

// priorities of syslog(3) for debug, info, warn and error.
var priorities = [4]int{7, 6, 4, 3}

func (o *logOptions) journalHandler(w io.Writer) slog.Handler {
	var h journalHandler
	for i, priority := range priorities {
		h.byLevel[i] = o.handler(prefixed{w, fmt.Sprintf("<%d>", priority)}, withoutTimeAndLevel)
	}
	return h
}

func withoutTimeAndLevel(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return slog.Attr{}
	}
	return a
}

func (h journalHandler) of(level slog.Level) slog.Handler {
	switch {
	case level < slog.LevelInfo:
		return h.byLevel[0]
	case level < slog.LevelWarn:
		return h.byLevel[1]
	case level < slog.LevelError:
		return h.byLevel[2]
	}
	return h.byLevel[3]
}

// The methods of a slog.Handler.

func (h journalHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.of(level).Enabled(ctx, level)
}

func (h journalHandler) Handle(ctx context.Context, r slog.Record) error {
	return h.of(r.Level).Handle(ctx, r)
}

func (h journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	for i := range h.byLevel {
		h.byLevel[i] = h.byLevel[i].WithAttrs(attrs)
	}
	return h
}

func (h journalHandler) WithGroup(name string) slog.Handler {
	for i := range h.byLevel {
		h.byLevel[i] = h.byLevel[i].WithGroup(name)
	}
	return h
}

// prefixed writes each line with something in front.
type prefixed struct {
	w      io.Writer
	prefix string
}

func (p prefixed) Write(line []byte) (int, error) {
	if _, err := p.w.Write(append([]byte(p.prefix), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}
