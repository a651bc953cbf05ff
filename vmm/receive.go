package vmm

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"time"

	"microvm/migration"
)

// ArrivalOptions of a VM that is to arrive.
type ArrivalOptions struct {
	Name    string      // replaces the name that the VM has at the source, if not empty
	Console *Console    // what its serial port is connected to; nil is nothing
	Disks   []string    // the paths of its disks on this host
	Nets    []TapConfig // its network cards' sides on this host
	Vsock   string      // the path of its vsock device on this host; empty is in its state directory
	Logger  *slog.Logger
	Program string              // this program's version, for those who ask what would stop a migration
	Events  *migration.EventLog // nil: none are kept
	// SocketGroup may use the VM besides its owner, if not empty: see StateDir.Share.
	SocketGroup string
	// Recover is how long to wait for a source whose connections broke, 0
	// not at all.
	Recover time.Duration
	// MaxConnections is over how many the source may spread memory; 0 is
	// migration.MaxConnections.
	MaxConnections int
	// Hugepages says whether guest RAM here is made of 2 MiB pages; nil
	// stands for what it is at the source.
	Hugepages *bool
	// TLS is for every connection of the source; nil is without.
	TLS func() *tls.Config
}

// An Arrival is a VM on its way in from another host.
//
//	a, err := NewArrival(options)
//	err = a.Confine(listener, confinement)
//	go a.Receive(ctx, listener)
//	vm := <-a.Runs()
//	err = a.Server.Serve(ctx, vm, ...)
type Arrival struct {
	// Server shows the VM. It is there from the beginning if the VM was
	// given a name here, otherwise once Runs has said that it runs.
	Server *Server

	o    ArrivalOptions
	dest *migration.Destination
	vm   *VM
	runs chan *VM
	// confinement is what Confine was given, nil without; listening the path of
	// the unix socket where it listens, or empty.
	confinement *Confinement
	listening   string
}

// NewArrival prepares. A VM that is given a name can be asked for by that name
// from now on.
func NewArrival(o ArrivalOptions) (*Arrival, error) {
	a := &Arrival{o: o, runs: make(chan *VM, 1)}
	a.dest = migration.NewDestination(a.build, migration.DestinationOptions{Recover: o.Recover, MaxConnections: o.MaxConnections, TLS: o.TLS, Check: a.check, Program: o.Program, Log: o.Logger, Events: o.Events})
	if o.Name == "" {
		return a, nil
	}
	return a, a.open(o.Name)
}

// Runs gives the VM when it runs here.
func (a *Arrival) Runs() <-chan *VM { return a.runs }

// Status describes the arrival as it is now.
func (a *Arrival) Status() migration.Status { return a.dest.Status() }

// GiveUp ends Receive unless the VM runs here already, and reports whether it
// does so.
func (a *Arrival) GiveUp() bool { return a.dest.GiveUp() }

// Abandon has Receive wait no longer for a source that is not connected: see
// [migration.Destination.Abandon].
func (a *Arrival) Abandon() { a.dest.Abandon() }

// Kill ends a VM that runs here, whatever that costs. If it needs its source,
// and that is not connected, it is lost.
func (a *Arrival) Kill() {
	cutOff := a.dest.Phase() == migration.PhasePaused && a.vm.State() == StatePostcopy
	a.dest.Abandon()
	if cutOff {
		select {
		case <-a.vm.Lost():
			return
		case <-time.After(time.Second): // the source has just come back
		}
	}
	a.vm.Stop() // the source hears of it
}

// Receive takes the VM in from whoever dials ln first, and returns when all of
// it is here. An error before it ran means that it stays where it was; then
// nothing is left behind here. A *migration.LostError means that it ran here
// and cannot go on.
func (a *Arrival) Receive(ctx context.Context, ln net.Listener) error {
	err := a.dest.Receive(ctx, ln)
	if a.vm != nil {
		a.vm.inMemory.done()
	}
	var lost *migration.LostError
	if err == nil || errors.As(err, &lost) {
		return err
	}
	if a.vm != nil {
		a.vm.Stop()
		err = errors.Join(err, a.vm.Close())
	}
	if a.Server != nil {
		err = errors.Join(err, a.Server.Close(ExitStatus{Code: ExitCode(err), Reason: err.Error()}))
	}
	return err
}

// open makes the VM's state directory and answers in it.
func (a *Arrival) open(name string) error {
	dir, err := OpenStateDir(name)
	if err != nil {
		return err
	}
	if a.o.SocketGroup != "" {
		err = dir.Share(a.o.SocketGroup)
	}
	if err == nil {
		a.Server, err = Listen(dir, a.o.Console, a.o.Logger)
	}
	if err != nil {
		return errors.Join(err, dir.Release(ExitStatus{Code: ExitError, Reason: err.Error()}, nil))
	}
	AddMigration(a.Server.API, a.o.Logger)
	AddSnapshot(a.Server.API, a.o.Program)
	a.Server.API.metrics.MustRegister(arrivalCollector{a.dest})
	return nil
}

func (a *Arrival) options() Options {
	return Options{Logger: a.o.Logger, Console: a.o.Console, Name: a.o.Name, Hugepages: a.o.Hugepages, Disks: a.o.Disks, Nets: a.o.Nets, Vsock: a.o.Vsock}
}

// check is the migration's Checker.
func (a *Arrival) check(ctx context.Context, config []byte) []migration.Finding {
	return CheckIncoming(ctx, config, a.options())
}

// build is the migration's Builder.
func (a *Arrival) build(ctx context.Context, config []byte) (migration.DestinationMachine, error) {
	vm, err := NewIncoming(ctx, config, a.options())
	if err != nil {
		return nil, err
	}
	if a.Server == nil {
		if err := a.open(vm.Name()); err != nil {
			return nil, errors.Join(err, vm.Close())
		}
	}
	if err := a.confineBuilt(vm); err != nil {
		return nil, errors.Join(err, vm.Close())
	}
	if err := vm.inMemory.begin(); err != nil {
		return nil, errors.Join(err, vm.Close())
	}
	a.o.Events.SetVM(vm.Name())
	a.vm = vm
	a.Server.API.Attach(vm)
	return &arriving{vm, a.runs}, nil
}

// arriving is a VM that tells when it runs.
type arriving struct {
	*VM
	runs chan<- *VM
}

func (a *arriving) Run() error {
	err := a.VM.Run()
	if err == nil {
		a.runs <- a.VM
	}
	return err
}
