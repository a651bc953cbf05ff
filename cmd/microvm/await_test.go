package main

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"microvm/migration"
	"microvm/vmm"
)

// fakeArrival is a destination that does as a test says.
type fakeArrival struct {
	runs      chan *vmm.VM
	giveUp    func() bool
	abandoned func()
}

func (a *fakeArrival) Runs() <-chan *vmm.VM { return a.runs }
func (a *fakeArrival) GiveUp() bool         { return a.giveUp() }
func (a *fakeArrival) Abandon()             { a.abandoned() }

var errNever = errors.New("it never ran")

// However a VM comes, or does not come, receive goes on.
func TestReceiveWaitsForNothingThatWillNotCome(t *testing.T) {
	vm := &vmm.VM{}
	for _, c := range []struct {
		name    string
		timeout time.Duration
		signals int
		play    func(a *fakeArrival, received chan<- error)
		vm      *vmm.VM
		status  int // of the process, without a VM
		err     error
	}{
		{name: "it runs", vm: vm, play: func(a *fakeArrival, _ chan<- error) { a.runs <- vm }},
		{name: "it runs and all of it is here", vm: vm, play: func(a *fakeArrival, received chan<- error) {
			a.runs <- vm
			received <- nil
		}},
		{name: "it fails", status: exitFailure, err: errNever, play: func(_ *fakeArrival, received chan<- error) { received <- errNever }},
		// RUN has come, so that it cannot be given up, and then its vCPUs
		// cannot be started.
		{name: "a signal, and it cannot be started", signals: 1, status: exitFailure, err: errNever, play: func(a *fakeArrival, received chan<- error) {
			a.giveUp = func() bool { received <- errNever; return false }
		}},
		{name: "the timeout, and it cannot be started", timeout: time.Nanosecond, status: exitFailure, err: errNever, play: func(a *fakeArrival, received chan<- error) {
			a.giveUp = func() bool { received <- errNever; return false }
		}},
		{name: "a signal in the moment in which it runs", signals: 1, vm: vm, play: func(a *fakeArrival, _ chan<- error) {
			a.giveUp = func() bool { a.runs <- vm; return false }
		}},
		{name: "a signal", signals: 1, status: exitFailure, err: errNever, play: func(a *fakeArrival, received chan<- error) {
			a.giveUp = func() bool { received <- errNever; return true }
		}},
		{name: "the timeout", timeout: time.Nanosecond, status: exitTimeout, err: errNever, play: func(a *fakeArrival, received chan<- error) {
			a.giveUp = func() bool { received <- errNever; return true }
		}},
		// Its source does not answer.
		{name: "two signals", signals: 2, status: exitFailure, err: migration.ErrUnheard, play: func(a *fakeArrival, received chan<- error) {
			a.giveUp = func() bool { return true }
			a.abandoned = func() { received <- migration.ErrUnheard }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			received := make(chan error, 1)
			signals := make(chan os.Signal, 2)
			for range c.signals {
				signals <- unix.SIGTERM
			}
			a := &fakeArrival{runs: make(chan *vmm.VM, 1)}
			c.play(a, received)
			got, err := (&reception{timeout: c.timeout}).await(a, signals, received)
			if got != c.vm {
				t.Errorf("VM %p, want %p", got, c.vm)
			}
			if c.vm == nil && (exitStatus(err) != c.status || !errors.Is(err, c.err)) {
				t.Errorf("status %d with %v, want %d with %v", exitStatus(err), err, c.status, c.err)
			}
			if c.name == "it runs and all of it is here" && len(received) != 1 {
				t.Error("how Receive ended is forgotten")
			}
		})
	}
}

// A destination that is ready to run the VM may have been given it already, and
// stays until the source has heard that it does not want it. That may take as
// long as --recover says, or until it is told again.
func TestASecondSignalEndsADestinationThatNobodyAnswers(t *testing.T) {
	for _, how := range []string{"signal", "timeout"} {
		t.Run(how, func(t *testing.T) {
			h := newHost(t)
			source := h.boot("a", busy)
			flags, status := []string{"--name", "b", "--recover", "1h"}, exitFailure
			if how == "timeout" {
				flags, status = append(flags, "--timeout", "2s"), exitTimeout
			}
			dest, addr := h.receive(flags...)
			relay := newRelay(t, addr, "LOADED", 0)
			migrate := h.start("migrate", "a", relay.addr, "--postcopy")
			relay.awaitHeld()
			if how == "signal" {
				dest.signal(unix.SIGTERM)
			}
			dest.awaitError("another signal ends")
			dest.runs()
			dest.signal(unix.SIGTERM)
			dest.wait(status)
			if text := dest.stderr.String(); !strings.Contains(text, "--take-back") {
				t.Errorf("it does not say what that may mean: %s", text)
			}
			relay.letPass()
			migrate.wait(exitStays)
			h.stays(source, "a")
		})
	}
}
