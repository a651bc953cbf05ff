package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"microvm/migration"
	"microvm/vmm"
)

var receiveCommand = command{
	name:    "receive",
	summary: "Take in a VM from another host and run it",
	usage:   "receive --listen tcp:HOST:PORT|unix:PATH|fd:N [--name NAME] [--hugepages same|on|off] [--console stdio|socket|off] [--timeout D] [--recover D] [--max-connections N] [--tls-dir DIR] [--jail DIR,uid=N,gid=N[,cgroup=PATH]] [--events FILE|-] [--progress auto|plain|json|none]",
	about: `
Waits for one migration, builds the VM that it describes, and runs it as if it
had been started here. The first line on stdout is the address to migrate to;
with port 0 the kernel chooses the port.

If the connection breaks once the VM runs here, it goes on with the pages it has,
and waits for the others as long as it takes: nothing is lost while its source
holds them (microvm migrate VM --resume, there). --recover is how long to wait
for a source that is not needed, or that never let the VM run here.

A first SIGINT, SIGTERM or SIGHUP ends the VM unless part of it is at the source
still; a second one ends it in any case. Before the VM runs here a signal gives
it up: the source keeps it. From the moment that this side is ready to run it,
the source may have given it away already, and has to hear that it is not
wanted: that is waited for, for as long as --recover says, or until a second
signal. If the source has not heard, it keeps the VM paused; microvm migrate VM
--resume there asks this side again, and once this side has ended, --take-back
--force there lets the VM run on.

Guest memory is made of the same pages as at the source: of 2 MiB ones from this
host's pool (sysctl vm.nr_hugepages) if the VM was started with --hugepages. This
host's --hugepages on or off decides otherwise; the source then sends pages of
the size that they have here.

--net, once for each network card that the VM has, and in the same order, is what it
is connected to on this host: tap=auto[,bridge=NAME], tap=NAME or fd=N, as microvm run
has it. Its address and MTU come with it.

--disk, once for each disk that the VM has, and in the same order, names the file
on this host: the same one, on storage that both hosts have, or the VM would find
another's data. Files that were not named are never opened. The source gives its
disks up before the VM runs here.

On a terminal one line on stderr shows how far it is, until the VM runs here or, if
its console is not on this terminal (--console), until all of it is here.

--vsock PATH is where programs of this host find a VM that has a vsock device: its
connections end at the source, and new ones are made here.

Before it reads what a source says, the process gives up what no VM needs that it may
be handed, and the rest when it has built one: see microvm help run, and
docs/security.md. With --tls-dir it can read no other files of the host.

Whoever can connect to the address can hand this host a VM: say --tls-dir, which
lets in only who has a certificate of yours, or listen on a network that only
the hosts of your VMs are on, or on a unix socket.

Exit status: that of run, once the VM has run here; 7 it ran here and is lost,
since pages that it needs are gone or were given up; 1 it never ran here; 124
nor within --timeout.`,
	examples: []string{
		"microvm receive --listen tcp:127.0.0.1:4444 --name b",
		"microvm receive --listen tcp:192.0.2.1:4444 --disk /shared/root.img",
		"microvm receive --listen tcp:192.0.2.7:4444 --tls-dir /etc/microvm/tls",
		"microvm receive --listen unix:/run/microvm/in.sock --console socket",
	},
	prepare: func(flags *pflag.FlagSet) runner {
		var listen, events, tlsDir, progress string
		var timeout, recover time.Duration
		var connections int
		flags.StringVar(&listen, "listen", "", "`address` to wait at: tcp:HOST:PORT, unix:PATH, or fd:N for a listening socket that was passed, as by systemd")
		here := addHereFlags(flags)
		flags.StringVar(&events, "events", "", "write what happens, a JSON object a line, to a `FILE`, or to stdout after the address: - (docs/events.md)")
		flags.DurationVar(&timeout, "timeout", 0, "give up if the VM does not run here by then (default never)")
		flags.DurationVar(&recover, "recover", defaultRecover, "how long to wait for the source if the connection breaks, unless the VM needs it")
		flags.IntVar(&connections, "max-connections", migration.MaxConnections, "over how many connections the source may spread memory")
		options := addSessionFlags(flags)
		flags.StringVar(&tlsDir, "tls-dir", "", "`folder` with ca-cert.pem, server-cert.pem and server-key.pem: TLS, and nothing else (default none)")
		flags.StringVar(&progress, "progress", "auto", "on stderr: auto, plain, json or none")
		return func(ctx context.Context, args []string, stdout io.Writer) error {
			if err := noArguments(args); err != nil {
				return err
			}
			show, err := newProgress(progress, os.Stderr)
			if err := errors.Join(err, here.check(), options.check()); err != nil {
				return err
			}
			if err := onlyTLS(options.confinement, tlsDir); err != nil {
				return err
			}
			if listen == "" {
				if listen = passedSocket(); listen == "" {
					return usagef("--listen is missing: tcp:HOST:PORT, unix:PATH or fd:N")
				}
			}
			addr, err := migration.ParseListenAddress(listen)
			if err != nil {
				return usagef("--listen: %v", err)
			}
			if connections < 1 || connections > migration.MaxConnections {
				return usagef("--max-connections %d: has to be 1 to %d", connections, migration.MaxConnections)
			}
			if events == "-" && here.console == vmm.ConsoleStdio {
				return usagef("--events - and --console stdio exclude each other: use --console socket, or a file")
			}
			var secure func() *tls.Config
			if tlsDir != "" {
				if err := addr.CheckTLS(); err != nil {
					return usagef("--tls-dir: %v", err)
				}
				if secure, err = migration.DestinationTLS(tlsDir, slog.Default()); err != nil {
					return &exitError{status: exitRefused, err: err}
				}
			}
			ln, err := migration.Listen(ctx, addr)
			if err != nil {
				return err
			}
			defer ln.Close()
			r := &reception{session: newSession(here.console, *options), here: here, timeout: timeout, recover: recover, connections: connections, tls: secure, show: show}
			if events != "" {
				w, err := openEvents(events, stdout)
				if err != nil {
					return err
				}
				defer w.close()
				r.events, r.writer = migration.NewEventLog(here.name), w
			}
			return r.run(ctx, ln, stdout)
		}
	},
}

// reception is one run of the command.
type reception struct {
	session *session
	here    *hereFlags
	timeout time.Duration
	recover time.Duration
	// connections is how many the source may have for memory.
	connections int
	tls         func() *tls.Config  // nil: without
	events      *migration.EventLog // nil, like writer: nobody wants them
	writer      *eventWriter
	show        progress
}

// passedSocket is how --listen names the first socket that a service manager has
// passed: sd_listen_fds(3). It is empty if there is none.
func passedSocket() string {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) || os.Getenv("LISTEN_FDS") != "1" {
		return ""
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	return "fd:3"
}

func (r *reception) run(ctx context.Context, ln net.Listener, stdout io.Writer) error {
	r.logAbove()
	a, err := vmm.NewArrival(vmm.ArrivalOptions{Name: r.here.name, Console: r.session.console, Logger: slog.Default(), Program: readVersion().text(), Recover: r.recover, Disks: r.here.disks, Nets: r.here.nets, Vsock: r.here.vsock, Hugepages: r.here.hugepages, MaxConnections: r.connections, TLS: r.tls, Events: r.events, SocketGroup: r.session.group})
	if err != nil {
		return err
	}
	// Before the address is known: whoever has it may send a signal too.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(signals)
	if err := a.Confine(ln, *r.session.confinement); err != nil {
		return err
	}
	addr := migration.ListenAddress(ln).String()
	fmt.Fprintln(stdout, addr)
	waiting, arrived := context.WithCancel(ctx)
	defer arrived()
	r.session.manager.ready("waits for a VM at " + addr)
	r.session.manager.follow(waiting, func(context.Context) (vmStatus, error) { return vmStatus{text: "waits for a VM at " + addr}, nil })
	if r.events != nil {
		defer r.writer.follow(r.events)()
	}
	stop := r.follow(a.Status)
	defer stop()
	received := make(chan error, 1)
	go func() { received <- a.Receive(ctx, ln) }()
	vm, err := r.await(a, signals, received)
	arrived()
	if vm == nil {
		r.session.manager.stopping("no VM has come")
		return err
	}
	if r.session.stdio {
		stop() // the terminal is the guest's
	}
	return r.serve(ctx, a, vm, received)
}

// serve shows a VM that runs here, until it has ended.
func (r *reception) serve(ctx context.Context, a *vmm.Arrival, vm *vmm.VM, received <-chan error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.session.kill = func(*vmm.VM) { a.Kill() }
	detach, err := r.session.attach(ctx, vm)
	if err != nil {
		// The guest is worth more than the terminal.
		slog.Error("no console on this terminal", "error", err)
		detach = func() {}
	}
	r.session.follow(ctx, vm, func() string {
		if s := a.Status(); s.Phase == migration.PhaseRunning || s.Phase == migration.PhasePaused {
			return fmt.Sprintf("arriving: %s, %s left", s.Phase, bytesText(s.PagesLeft*pageSize))
		}
		return ""
	})
	served := a.Server.Serve(ctx, vm, func() error { return nil })
	detach()
	if err := <-received; err != nil {
		return err
	}
	return r.session.outcome(served)
}
