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
	"runtime/debug"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"microvm/devices/console"
	"microvm/vmm"
	"microvm/vmm/client"
)

// A session is a VM's process as its user sees it: the terminal, the signals,
// the exit status. run and receive share it.
type session struct {
	sessionOptions
	console *vmm.Console // nil with --console off
	stdio   bool
	kill    func(*vmm.VM) // what a second signal does
	manager *notifier
}

// sessionOptions are what run and receive have in common of this host's side.
type sessionOptions struct {
	log   *logOptions
	group string // that may use the VM's sockets, or empty
	// grace is how long the guest may take to power off after the first signal,
	// 0 for none: the power is cut.
	grace time.Duration
	// confinement is what the flags say of it, after check.
	confine     *confineFlags
	confinement *vmm.Confinement
}

func addSessionFlags(flags *pflag.FlagSet) *sessionOptions {
	o := &sessionOptions{}
	flags.StringVar(&o.group, "socket-group", "", "a `group` whose members may use the VM: its API, its console and its log")
	flags.DurationVar(&o.grace, "stop-timeout", 0, "at a signal, press the guest's power button and give it so long before the power is cut (default: cut it at once)")
	o.confine = newConfineFlags(flags)
	o.log = addLogFlags(flags)
	return o
}

// check refuses what makes no sense.
func (o *sessionOptions) check() error {
	if o.grace < 0 {
		return usagef("--stop-timeout %v: has to be 0 or more", o.grace)
	}
	var err error
	if o.confinement, err = o.confine.parse(); err != nil {
		return err
	}
	return o.log.check()
}

// newSession prepares for --console mode.
func newSession(mode string, o sessionOptions) *session {
	s := &session{sessionOptions: o, kill: (*vmm.VM).Stop}
	makeRoom()
	dieOfSignals()
	// What is logged while the terminal is raw has to look right.
	o.log.start(mode == vmm.ConsoleStdio && term.IsTerminal(int(os.Stdin.Fd())))
	s.manager = newNotifier()
	switch mode {
	case vmm.ConsoleStdio:
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

// dieOfSignals has a process that fails in a way that nobody thought of, or that a
// watchdog's SIGABRT ends, say where it is and die of SIGABRT. It is Go's way to
// exit with 2 instead, which is exitUsage: a service manager takes it for a config
// that makes no sense, and does not start the VM again.
func dieOfSignals() { debug.SetTraceback("crash") }

// attach lets the terminal and the signals act on vm until ctx ends. What it
// returns undoes that, and has to be called before the process ends.
func (s *session) attach(ctx context.Context, vm *vmm.VM) (detach func(), err error) {
	restore := func() {}
	if s.stdio {
		if restore, err = s.attachTerminal(ctx, vm); err != nil {
			return nil, err
		}
	}
	stop := s.handleSignals(vm)
	return func() {
		s.manager.stopping("the VM has ended")
		stop()
		restore()
	}, nil
}

// lastLines is how much of a console nobody may have looked at is worth keeping of
// a guest that failed.
const lastLines = 30

// outcome prints what a crash left, and turns how a VM ended into a command's
// error. Preconditions: the terminal is as it was.
func (s *session) outcome(err error) error {
	if s.console != nil && !s.stdio && (errors.Is(err, vmm.ErrGuestPanic) || errors.Is(err, vmm.ErrCrash)) {
		for _, line := range s.console.LastLines(lastLines) {
			fmt.Fprintf(os.Stderr, "guest: %s\n", line)
		}
	}
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

// follow tells the service manager how the VM does until ctx ends. arriving is what
// there is to say of that, empty once it is here.
func (s *session) follow(ctx context.Context, vm *vmm.VM, arriving func() string) {
	if s.manager == nil {
		return
	}
	i, err := vmm.FindInstance(vm.Name())
	if err != nil {
		slog.Error("the service manager will not hear how the VM does", "err", err)
		return
	}
	s.manager.follow(ctx, askVM(client.New(i), arriving))
}

// handleSignals ends the VM at SIGINT, SIGTERM and SIGHUP: the first stops it, the
// others kill it. What it returns stops that.
func (s *session) handleSignals(vm *vmm.VM) (stop func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		first := true
		for range signals {
			if first {
				go s.stop(vm)
			} else {
				go s.kill(vm)
			}
			first = false
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
	}
}

// stop has the guest power off, if it is given time for that, and then ends the VM.
// A service manager asks once, and later kills: for it a VM that is between two
// hosts, where this would end it on the other one too, is stopped in the same way
// as soon as it is whole here.
func (s *session) stop(vm *vmm.VM) {
	s.manager.toEnd()
	for waited := false; ; waited = true {
		err := s.shutDown(vm, waited)
		var state *vmm.StateError
		if !errors.As(err, &state) || state.State == vmm.StateMigrated || state.State == vmm.StateStopped {
			return
		}
		if s.manager == nil {
			slog.Error("not stopped; a second signal stops it all the same", "err", err)
			return
		}
		if !waited {
			slog.Warn("not stopped yet", "err", err)
		}
		select {
		case <-time.After(stopEvery):
		case <-vm.Done():
			return
		case <-vm.Lost():
			return
		}
	}
}

// shutDown presses the power button of a guest that is given time, and cuts the
// power if that is over or nobody looks at the button. It fails if the VM is between
// two hosts. late is whether a service manager has been waiting since before.
func (s *session) shutDown(vm *vmm.VM, late bool) error {
	if s.grace == 0 {
		return vm.PowerOff()
	}
	err := vm.PressPowerButton()
	var state *vmm.StateError
	if errors.As(err, &state) && state.State == vmm.StatePostcopy {
		return err
	}
	if err != nil {
		return vm.PowerOff() // a paused guest sees no button
	}
	s.manager.stopping("the guest powers off")
	if late {
		s.manager.extend(s.grace + extension)
	}
	select {
	case <-vm.Done():
		return nil
	case <-time.After(s.grace):
	}
	slog.Warn("the guest has not powered off, its power is cut", "vm", vm.Name(), "after", s.grace)
	return vm.PowerOff()
}

// stopEvery is how often it is tried to stop a VM that is between two hosts.
const stopEvery = 100 * time.Millisecond

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
