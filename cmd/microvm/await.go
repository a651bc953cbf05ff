package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"microvm/migration"
	"microvm/vmm"
)

// An arrival is what receive waits for: *vmm.Arrival.
type arrival interface {
	Runs() <-chan *vmm.VM
	GiveUp() bool
	Abandon()
}

// unheardAfter is when a person is told why a destination that was given up
// does not end.
const unheardAfter = time.Second

// await returns the VM when it runs here, and otherwise how Receive ended. A
// signal or the timeout gives the VM up, and another signal ends the wait for a
// source that has to hear of it. What comes from received, if a VM is returned,
// is there still.
func (r *reception) await(a arrival, signals <-chan os.Signal, received chan error) (*vmm.VM, error) {
	var late, unheard <-chan time.Time
	if r.timeout > 0 {
		late = time.After(r.timeout)
	}
	givenUp, timedOut := false, false
	giveUp := func() {
		// If not, it has come to run here in the very moment, or could not:
		// either is about to be heard of.
		if givenUp = a.GiveUp(); givenUp {
			unheard = time.After(unheardAfter)
		}
	}
	for {
		select {
		case vm := <-a.Runs():
			return vm, nil
		case err := <-received:
			select {
			case vm := <-a.Runs():
				received <- err
				return vm, nil
			default:
			}
			return nil, r.neverRan(err, timedOut)
		case <-late:
			giveUp()
			timedOut = givenUp
		case <-signals:
			if givenUp {
				a.Abandon()
			} else {
				giveUp()
			}
		case <-unheard:
			slog.Warn("given up; the source may have given the VM away already, and has to hear that it does not run here: another signal ends without waiting for that")
		}
	}
}

// neverRan explains how a destination ended that never ran a VM.
func (r *reception) neverRan(err error, timedOut bool) error {
	if errors.Is(err, migration.ErrUnheard) {
		err = fmt.Errorf("%w; if the VM is paused at its source now, take it back there: microvm migrate VM --take-back --force", err)
	}
	if timedOut {
		err = &exitError{status: exitTimeout, err: fmt.Errorf("no VM runs here after %v: %w", r.timeout, err)}
	}
	return err
}
