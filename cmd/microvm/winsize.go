package main

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// followSize says what size a terminal has, now and whenever it changes, until
// ctx ends. What is no terminal has none.
func followSize(ctx context.Context, f *os.File, tell func(columns, rows uint16)) {
	fd := int(f.Fd())
	if !term.IsTerminal(fd) {
		return
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	go func() {
		defer signal.Stop(changed)
		for {
			if size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil && size.Col > 0 && size.Row > 0 {
				tell(size.Col, size.Row)
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
}
