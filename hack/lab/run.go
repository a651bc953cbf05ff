package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"microvm/hack/lab/labvm"
)

func run(args []string) {
	o := labvm.Options{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	var files []string
	var verbose bool
	flags := pflag.NewFlagSet("lab run", pflag.ContinueOnError)
	flags.DurationVar(&o.Deadline, "deadline", 0, "end the command after this long, boot included, with status 124")
	flags.IntVar(&o.MemoryMiB, "mem", 4096, "the lab's RAM in MiB; its files lie in it too")
	flags.IntVar(&o.CPUs, "cpus", 2, "the lab's CPUs")
	flags.StringArrayVar(&files, "file", nil, "copy a file or folder into the lab, as HOST:LAB; may be repeated")
	flags.StringArrayVar(&o.Disks, "disk", nil, "an image that is /dev/vda in the lab, the next one /dev/vdb; may be repeated")
	flags.StringArrayVar(&o.Env, "env", nil, "NAME=VALUE for the command; may be repeated")
	flags.StringArrayVar(&o.Modules, "module", nil, "insert this kernel module and what it needs; may be repeated")
	flags.BoolVar(&o.QEMU, "qemu", false, "copy this machine's QEMU into the lab")
	flags.BoolVar(&o.Stress, "stress", false, "have stress-ng for the guests, in $MICROVM_GUEST_STRESS, to stand before their initramfs in one file")
	flags.BoolVarP(&verbose, "verbose", "v", false, "show the lab kernel's messages and the times")
	flags.BoolVarP(&o.Terminal, "tty", "t", false, "give the command a terminal")
	parse(flags, args)

	o.Command = flags.Args()
	if len(o.Command) == 0 {
		fail(statusUsage, fmt.Errorf("lab run: which command?\n%s", usage))
	}
	for _, f := range files {
		host, guest, ok := strings.Cut(f, ":")
		if !ok || host == "" || guest == "" {
			fail(statusUsage, fmt.Errorf("lab run: --file %s: want HOST:LAB", f))
		}
		o.Files = append(o.Files, labvm.File{Host: host, Guest: guest})
	}
	if verbose {
		o.Console, o.Progress = os.Stderr, os.Stderr
	}
	status, err := runInLab(o)
	if err != nil {
		fail(statusLab, err)
	}
	os.Exit(status)
}

// runInLab runs the command with this process's signals and terminal lent to it.
func runInLab(o labvm.Options) (int, error) {
	cache, err := labvm.CacheDir()
	if err != nil {
		return 0, err
	}
	pieces, err := labvm.EnsurePieces(cache, os.Stderr)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	caught, passed := make(chan os.Signal, 4), make(chan os.Signal, 4)
	o.Signals = passed
	signal.Notify(caught, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGWINCH)
	go func() {
		// The first one is the command's to obey. Whoever sends three wants it over.
		for deadly := 0; ; {
			sig := <-caught
			if sig != syscall.SIGWINCH {
				deadly++
			}
			if deadly == 3 {
				cancel()
				return
			}
			select {
			case passed <- sig:
			default: // nobody listens yet: the lab is still booting
				if sig != syscall.SIGWINCH {
					cancel()
				}
			}
		}
	}()
	if fd := int(os.Stdin.Fd()); o.Terminal && term.IsTerminal(fd) {
		state, err := term.MakeRaw(fd)
		if err != nil {
			return 0, fmt.Errorf("lab: making the terminal raw: %w", err)
		}
		defer func() { _ = term.Restore(fd, state) }()
	}
	return pieces.Run(ctx, o)
}
