package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"microvm/migration"
	"microvm/vmm/client"
)

// eventWriter writes events, a line each.
type eventWriter struct {
	w      io.Writer
	file   *os.File // nil: w is stdout
	failed bool     // and that was said
}

// openEvents opens what --events names: a file, which is appended to, or - for
// stdout.
func openEvents(name string, stdout io.Writer) (*eventWriter, error) {
	if name == "-" {
		return &eventWriter{w: stdout}, nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("--events: %w", err)
	}
	return &eventWriter{w: f, file: f}, nil
}

// write writes one event. What cannot be written is no reason to disturb the
// migration.
func (w *eventWriter) write(event json.RawMessage) {
	if _, err := w.w.Write(append(event, '\n')); err != nil && !w.failed {
		w.failed = true
		slog.Warn("events are lost", "error", err)
	}
}

func (w *eventWriter) close() {
	if w.file != nil {
		_ = w.file.Close() // what could not be written was said
	}
}

// lastEvents bounds the wait for the last events to be taken by whoever reads
// them.
const lastEvents = 2 * time.Second

// follow writes what comes into the log, until its last event is written. What
// it returns waits for that, but not for long.
func (w *eventWriter) follow(log *migration.EventLog) (wait func()) {
	written := make(chan struct{})
	go func() {
		defer close(written)
		for seq := uint64(1); ; {
			events, more := log.Read(seq)
			for _, e := range events {
				text, err := json.Marshal(e)
				if err != nil {
					slog.Error("event", "error", err)
					return
				}
				w.write(text)
				seq = e.Seq + 1
				if e.Type == migration.EventEnd {
					return
				}
			}
			<-more
		}
	}()
	return func() {
		select {
		case <-written:
		case <-time.After(lastEvents):
		}
	}
}

// showEvents is migrate-status --events.
func showEvents(ctx context.Context, c *client.Client, watch bool, stdout io.Writer) error {
	w := &eventWriter{w: stdout}
	if !watch {
		return c.MigrationLog(ctx, w.write)
	}
	c.OnEvent = w.write
	last, err := c.WatchMigration(ctx, func(migration.Status) {})
	if err != nil {
		return err
	}
	return migrationExit(last)
}
