package console

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/term"
)

// Raw puts the terminal f into raw mode and returns what undoes that. A file
// that is no terminal stays as it is, and restore does nothing.
//
// restore may be called often and from any goroutine; only the first call
// counts. It has to be called on every way out of the process: deferred, before
// os.Exit, and before ending by a signal. In raw mode the terminal sends no
// signals of its own, Ctrl-c is a byte for the guest.
func Raw(f *os.File) (restore func() error, err error) {
	if !term.IsTerminal(int(f.Fd())) {
		return func() error { return nil }, nil
	}
	state, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, fmt.Errorf("console: put %s into raw mode: %w", f.Name(), err)
	}
	return sync.OnceValue(func() error {
		// Asked anew: f may be closed by now, and its number another file's.
		if err := term.Restore(int(f.Fd()), state); err != nil {
			return fmt.Errorf("console: restore %s (type `stty sane`): %w", f.Name(), err)
		}
		return nil
	}), nil
}
