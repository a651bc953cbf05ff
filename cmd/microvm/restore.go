package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/pflag"

	"microvm/migration/snapshot"
	"microvm/vmm"
)

var restoreCommand = command{
	name:    "restore",
	summary: "Run a VM from where its snapshot left it",
	usage:   "restore DIR [--lazy] [--name NAME] [--detach] [--console stdio|socket|off] [--disk FILE]... [--net tap=auto|NAME|fd=N]... [--vsock PATH] [--hugepages same|on|off] [--tls-dir DIR] [--jail DIR,uid=N,gid=N[,cgroup=PATH]]",
	about: `
Builds the VM that microvm snapshot saved in DIR, and has it go on, as often as that is
wanted; DIR stays as it is. Each page is checked against its checksum before the guest
sees it.

With --lazy the guest runs at once, whatever the size of its memory: a page is read
when it is touched (userfaultfd), and all others meanwhile, so that DIR is needed until
the log says that all of memory is here. A page that cannot be read ends the VM then,
with status 7; it can be restored again.

Disks and network cards are those that it had, but for what --disk and --net say, once
for each that it has and in the same order. A disk that was written to after the
snapshot is refused unless it is named by --disk: the guest would find another than it
left, and damage it.

The guest's clock goes on from where it stood, so that its time of day is behind (chrony
sets that, or hwclock --hctosys in the guest). Its generation ID is a new one, which
tells Linux, since 5.18, to make its random numbers anew. Connections of its network are
as if the cable had been out; those of a vsock device have ended.

What is said of signals, of confinement and of the exit status is as for microvm run.

Exit status: that of run; 7 the VM ran here and needs memory that cannot be read.`,
	examples: []string{
		"microvm restore /var/lib/vms/a",
		"microvm restore /var/lib/vms/a --lazy --detach",
		"microvm restore /var/lib/vms/a --name b --disk root-then.img",
	},
	prepare: func(flags *pflag.FlagSet) runner {
		var lazy, detach bool
		var tlsDir string
		flags.BoolVar(&lazy, "lazy", false, "run at once, and read memory as the guest touches it")
		flags.BoolVar(&detach, "detach", false, "return once the VM runs, and print its name")
		here := addHereFlags(flags)
		flags.StringVar(&tlsDir, "tls-dir", "", "the only `folder` that migrations from here may have TLS's files from, and that can be read (default any)")
		options := addSessionFlags(flags)
		return func(ctx context.Context, args []string, stdout io.Writer) error {
			if len(args) != 1 {
				return usagef("give the directory of one snapshot")
			}
			if err := here.check(); err != nil {
				return err
			}
			if err := options.check(); err != nil {
				return err
			}
			if err := onlyTLS(options.confinement, tlsDir); err != nil {
				return err
			}
			if detach && !flags.Changed("console") {
				here.console = vmm.ConsoleSocket
			}
			if detach && here.console == vmm.ConsoleStdio {
				return usagef("--console stdio and --detach exclude each other: there is no terminal then")
			}
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			if here.name == "" {
				if here.name, err = snapshot.VM(dir); err != nil {
					return err
				}
			}
			v := restores(dir, lazy, here)
			if detach {
				return runDetached(v, *options, stdout)
			}
			return run(ctx, v, *options)
		}
	},
}

// restores is a VM that comes from the snapshot in dir.
func restores(dir string, lazy bool, here *hereFlags) newVM {
	return newVM{name: here.name, console: here.console, make: func(ctx context.Context, o vmm.Options) (builtVM, error) {
		files, err := snapshot.Open(dir)
		if err != nil {
			return builtVM{}, err
		}
		o.Name, o.Hugepages, o.Disks, o.Nets, o.Vsock = here.name, here.hugepages, here.disks, here.nets, here.vsock
		r, err := vmm.Restore(ctx, files, lazy, o)
		if err != nil {
			files.Close()
			return builtVM{}, err
		}
		start := func() error {
			err := r.Run()
			if err != nil {
				files.Close()
				return err
			}
			go func() {
				// Whoever serves the VM hears how it ended.
				_, _ = r.Wait()
				files.Close()
			}()
			return nil
		}
		arriving := func() string {
			if left := r.PagesLeft(); left > 0 {
				return fmt.Sprintf("restoring: %s left", bytesText(left*pageSize))
			}
			return ""
		}
		return builtVM{r.VM, start, arriving}, nil
	}}
}
