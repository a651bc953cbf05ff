package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"microvm/devices/console"
	"microvm/vmm"
)

// A session is a VM's process as its user sees it: the terminal, the signals,
// the exit status. run and receive share it.
type session struct {
	console *vmm.Console // nil with --console off
	stdio   bool
	kill    func(*vmm.VM) // what a second signal does
}

// newSession prepares for --console mode.
func newSession(mode string) *session {
	s := &session{kill: (*vmm.VM).Stop}
	makeRoom()
	switch mode {
	case vmm.ConsoleStdio:
		if term.IsTerminal(int(os.Stdin.Fd())) {
			// What is logged while the terminal is raw has to look right.
			slog.SetDefault(slog.New(slog.NewTextHandler(lineEnds{os.Stderr}, nil)))
		}
		s.console, s.stdio = vmm.NewConsole(os.Stdout), true
	case vmm.ConsoleSocket:
		s.console = vmm.NewConsole(nil)
	}
	return s
}

// makeRoom lets more of Go's threads run at once than there are CPUs. A vCPU in
// KVM_RUN is in a system call, but keeps its place among them until the
// runtime's monitor takes it away, up to 10 ms later; whoever is to fetch the
// page that the vCPU waits for must not have to wait for that place.
func makeRoom() {
	runtime.GOMAXPROCS(runtime.NumCPU() + vmm.MaxCPUs)
}

// attach lets the terminal and the signals act on vm until ctx ends. What it
// returns undoes that, and has to be called before the process ends.
func (s *session) attach(ctx context.Context, vm *vmm.VM) (detach func(), err error) {
	restore := func() {}
	if s.stdio {
		if restore, err = s.attachTerminal(ctx, vm); err != nil {
			return nil, err
		}
	}
	stop := handleSignals(vm, s.kill)
	return func() {
		stop()
		restore()
	}, nil
}

// outcome prints what a crash left, and turns how a VM ended into a command's
// error. Preconditions: the terminal is as it was.
func outcome(err error) error {
	var crash *vmm.CrashError
	if errors.As(err, &crash) {
		fmt.Fprint(os.Stderr, crash.Dump())
		return &exitError{status: vmm.ExitGuestCrash}
	}
	return err
}

// attachTerminal lets stdin be the guest's keyboard, raw if it is a terminal.
func (s *session) attachTerminal(ctx context.Context, vm *vmm.VM) (restore func(), err error) {
	undo := func() error { return nil }
	if term.IsTerminal(int(os.Stdin.Fd())) {
		if undo, err = console.Raw(os.Stdin); err != nil {
			return nil, err
		}
	}
	followSize(ctx, os.Stdin, func(columns, rows uint16) {
		// Without a virtio console there is nobody to tell.
		_ = vm.ResizeConsole(vmm.ConsoleSize{Columns: columns, Rows: rows})
	})
	go func() {
		err := typeFrom(os.Stdin, func(p []byte) error { return s.console.Type(ctx, p) })
		if errors.Is(err, console.ErrLeave) {
			powerOff(vm)
		}
	}()
	return func() {
		if err := undo(); err != nil {
			slog.Error("the terminal", "err", err)
		}
	}, nil
}

// handleSignals ends the VM at SIGINT, SIGTERM and SIGHUP: the first powers it
// off, the others kill it. What it returns stops that.
func handleSignals(vm *vmm.VM, kill func(*vmm.VM)) (stop func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		first := true
		for range signals {
			if first {
				go powerOff(vm)
			} else {
				go kill(vm)
			}
			first = false
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
	}
}

// powerOff ends the VM unless that would end it on another host too.
func powerOff(vm *vmm.VM) {
	if err := vm.PowerOff(); err != nil {
		slog.Error("not stopped; a second signal stops it all the same", "err", err)
	}
}

// lineEnds writes lines as a terminal in raw mode needs them.
type lineEnds struct{ w io.Writer }

func (l lineEnds) Write(p []byte) (int, error) {
	if _, err := l.w.Write(bytes.ReplaceAll(p, []byte("\n"), []byte("\r\n"))); err != nil {
		return 0, err
	}
	return len(p), nil
}
