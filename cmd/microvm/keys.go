package main

import (
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"microvm/devices/console"
)

const (
	// maxKeys is how many keys may wait for a guest that takes none.
	maxKeys = 4096
	// leaveTime is how long the last keys before those that leave may take.
	leaveTime = 200 * time.Millisecond
)

// typeFrom gives take what comes from f until that ends, and returns why. A
// terminal's user is never made to wait by who takes it: otherwise the keys that
// leave the console would not be seen while a guest takes none. The bell tells of
// keys that are dropped then. Whatever else f is waits.
func typeFrom(f *os.File, take func([]byte) error) error {
	if !term.IsTerminal(int(f.Fd())) {
		return typeAll(f, take)
	}
	return typeKeys(f, os.Stderr, take)
}

// typeAll gives take all that comes.
func typeAll(in io.Reader, take func([]byte) error) error {
	for {
		p := make([]byte, 256)
		n, err := in.Read(p)
		if n > 0 {
			if err := take(p[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

// typeKeys gives take what of a terminal's keys is for the guest.
func typeKeys(in io.Reader, notices io.Writer, take func([]byte) error) error {
	keys, done := make(chan []byte, maxKeys), make(chan struct{})
	failed := make(chan error, 1)
	defer func() {
		close(keys)
		select {
		case <-done:
		case <-time.After(leaveTime):
		}
	}()
	go func() {
		defer close(done)
		for p := range keys {
			if err := take(p); err != nil {
				failed <- err
				return
			}
		}
	}()
	return typeAll(console.NewFilter(in, notices), func(p []byte) error {
		select {
		case err := <-failed:
			return err
		case keys <- p:
		default:
			// A terminal that cannot ring cannot be told otherwise either.
			_, _ = io.WriteString(notices, "\a")
		}
		return nil
	})
}
