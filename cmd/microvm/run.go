package main

import (
	"context"
	"errors"
	"io"
	"log/slog"

	"github.com/spf13/pflag"

	"microvm/vmm"
)

var runCommand = command{
	name:    "run",
	summary: "Boot a VM",
	usage:   "run [-k KERNEL] [-i INITRD] [-p CMDLINE] [-c CPUS] [-m SIZE] [--disk FILE[,ro]]... [--net tap=auto[,bridge=NAME]]... [--rng] [--balloon SIZE] [--vsock cid=N] [--virtio-console] [--name NAME] [--detach] [--tls-dir DIR] [--jail DIR,uid=N,gid=N[,cgroup=PATH]] [--config FILE] [--print-config]",
	about: `
Without -k the embedded tiny kernel boots, a small guest for tests; -p has its
parameters then, such as "work=write order=rand beat=1000".

--disk, once for each disk, is FILE[,ro][,serial=TEXT][,queues=N]: a raw file or a
block device, which becomes vda, vdb, and so on, in a guest with drivers for
virtio-mmio and virtio-blk. One VM at a time can write to it; several can share it
if all have it read-only. queues=N spreads requests over that many vCPUs.

--net, once for each network card (virtio-net), says what it is connected to:
tap=auto makes a tap device, which goes away with the VM, tap=NAME makes one of
that name or uses one that is there, fd=N is one that another program opened
(IFF_TAP, IFF_NO_PI, IFF_VNET_HDR). bridge=NAME makes a device that is made a port
of a bridge, owner=UID lets a user attach to it too. mac= is the guest's address,
mtu= what it is told; queues=N spreads the traffic over that many vCPUs. To make a
device or a port takes CAP_NET_ADMIN.

--rng gives the guest a virtio-rng device, of which Linux makes /dev/hwrng.

--balloon SIZE[,deflate-on-oom][,free-page-reporting] gives the guest a balloon that
takes so much of its memory from the beginning, 0 for none; microvm balloon changes
that. With deflate-on-oom a guest that runs out of memory may take it back; with
free-page-reporting the host has what the guest does not use, without being asked.
Neither is so unless it is said. Memory of huge pages stays the guest's.

--vsock cid=N[,path=UDS] gives the guest a vsock device with that CID, 3 or more. A
program of the host connects to the unix socket UDS, by default vsock.sock in the VM's
state directory, and writes "CONNECT PORT\n"; after "OK HOSTPORT\n" it talks to who
listens on that port in the guest. A guest that connects to CID 2, port PORT, gets to
the program that listens on the unix socket UDS_PORT.

--virtio-console gives the guest a virtio console, hvc0, besides its serial port: the
kernel prints there with -p console=hvc0. Both show on the same console. What is
typed goes to hvc0 once the guest has a driver for it (virtio_console), to the
serial port before; and hvc0 has the size of the terminal.

--config FILE has what the flags say, in JSON; a flag goes before what the file says,
and --disk and --net before all of its disks and cards. --print-config prints what
there is to be written there, for the flags given, and runs nothing.

With --console stdio, the default, this terminal is the guest's serial console:
Ctrl-a x ends the VM. A first SIGINT, SIGTERM or SIGHUP ends it too, unless part
of it lives on another host; a second one ends it in any case.

Before the guest runs, the process gives up what it needs no longer: capabilities,
system calls that it never makes, files that are not the VM's (docs/security.md).
What --seccomp kill ends has died of SIGSYS: status 159 in a shell; --seccomp log
has the kernel log such calls instead. With --tls-dir DIR it can read no file of the
host but those in DIR, where migrations from here then have to have theirs. --jail
takes root, and makes less of it.

Exit status: 0 the guest powered off, was stopped or has migrated; 1 error;
2 usage; 32 the guest reset itself; 33 it crashed (triple fault, KVM internal
error; registers on stderr); 34 its kernel panicked.`,
	examples: []string{
		"microvm run -p 'work=write fill=1' -m 256M",
		"microvm run -k vmlinuz -i initrd.gz -p console=ttyS0 -m 512M -c 2",
		"microvm run -k vmlinuz -i initrd.gz -p 'console=ttyS0 root=/dev/vda' --disk root.img --disk data.img,ro",
		"microvm run -k vmlinuz -i initrd.gz -p console=ttyS0 --net tap=auto,bridge=br0",
		"microvm run -k vmlinuz -i initrd.gz -p console=ttyS0 --vsock cid=3,path=/tmp/v.sock",
		"microvm run --name a --detach && microvm console a",
		"microvm run -k vmlinuz --disk root.img --print-config > a.json && microvm run --config a.json --name a",
	},
	prepare: func(flags *pflag.FlagSet) runner {
		f := newRunFlags(flags)
		return func(ctx context.Context, args []string, stdout io.Writer) error {
			if err := noArguments(args); err != nil {
				return err
			}
			if err := f.session.check(); err != nil {
				return err
			}
			if err := onlyTLS(f.session.confinement, f.tlsDir); err != nil {
				return err
			}
			said, err := f.assemble()
			if err != nil {
				return err
			}
			config, err := f.complete(said)
			if err != nil {
				return err
			}
			switch {
			case f.print:
				return printJSON(stdout, said)
			case f.detach:
				return runDetached(boots(config), *f.session, stdout)
			}
			return run(ctx, boots(config), *f.session)
		}
	},
}

// A newVM is a VM that is to run in this process, and how it comes about.
type newVM struct {
	name    string
	console string // one of vmm's Console constants
	make    func(context.Context, vmm.Options) (builtVM, error)
}

// A builtVM has yet to be started.
type builtVM struct {
	vm    *vmm.VM
	start func() error
	// arriving says how much of it is not here yet, once it runs; empty if nothing.
	arriving func() string
}

// boots is a VM that boots its kernel.
func boots(config vmm.Config) newVM {
	return newVM{name: config.Name, console: config.Console, make: func(ctx context.Context, o vmm.Options) (builtVM, error) {
		vm, err := vmm.New(ctx, config, o)
		if err != nil {
			return builtVM{}, err
		}
		return builtVM{vm, vm.Start, func() string { return "" }}, nil
	}}
}

// run makes a VM and shows it until it ends.
func run(ctx context.Context, v newVM, o sessionOptions) error {
	dir, err := vmm.OpenStateDir(v.name)
	if err != nil {
		return err
	}
	return runIn(ctx, dir, v, o, func() {})
}

// runIn is run for a VM whose state directory is open already. running is called
// once it runs.
func runIn(ctx context.Context, dir *vmm.StateDir, v newVM, o sessionOptions, running func()) error {
	s := newSession(v.console, o)
	if o.group != "" {
		if err := dir.Share(o.group); err != nil {
			return dirFailed(dir, err)
		}
	}
	server, err := vmm.Listen(dir, s.console, slog.Default())
	if err != nil {
		return dirFailed(dir, err)
	}
	built, err := v.make(ctx, vmm.Options{Logger: slog.Default(), Console: s.console})
	if err != nil {
		return serverFailed(server, err)
	}
	vm := built.vm
	vmm.AddMigration(server.API, slog.Default())
	vmm.AddSnapshot(server.API, readVersion().text())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	detach, err := s.attach(ctx, vm)
	if err != nil {
		return serverFailed(server, errors.Join(err, vm.Close()))
	}
	err = server.Serve(ctx, vm, func() error {
		if err := server.Confine(vm, *o.confinement); err != nil {
			return err
		}
		if err := built.start(); err != nil {
			return err
		}
		running()
		s.manager.ready(vm.State().String())
		s.follow(ctx, vm, built.arriving)
		return nil
	})
	detach()
	return s.outcome(err)
}

// dirFailed gives a state directory back whose VM came to nothing.
func dirFailed(dir *vmm.StateDir, err error) error {
	if closing := dir.Release(vmm.ExitStatus{Code: exitStatus(err), Reason: err.Error()}, nil); closing != nil {
		slog.Error("cleaning up", "err", closing)
	}
	return err
}

// serverFailed closes a server whose VM came to nothing.
func serverFailed(server *vmm.Server, err error) error {
	if closing := server.Close(vmm.ExitStatus{Code: exitStatus(err), Reason: err.Error()}); closing != nil {
		slog.Error("cleaning up", "err", closing)
	}
	return err
}
