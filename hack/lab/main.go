// Command lab is a KVM host on any machine: QEMU's software emulation has SVM with nested paging, so a Debian kernel
// in it has a genuine kvm_amd, and an unmodified Linux guest runs on that.
//
//	go run ./hack/lab build                  fetch the Debian packages it is made of into .cache/lab
//	go run ./hack/lab root                   make a disk with Debian on it, there too, and print its path
//	go run ./hack/lab run -- CMD [ARG...]    run a command in it as root
//
// See docs/testing.md.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"microvm/hack/lab/labvm"
)

const usage = `usage:
  go run ./hack/lab build
  go run ./hack/lab root
  go run ./hack/lab run [FLAG...] -- CMD [ARG...]`

// Exit statuses of the lab itself. A command's own status is passed on as it is.
const (
	statusUsage = 2
	statusLab   = 125 // the lab failed, not the command; as docker and chroot have it
)

func main() {
	args := os.Args[1:]
	if len(args) == 0 {
		fail(statusUsage, errors.New("lab: which command?\n"+usage))
	}
	switch args[0] {
	case "build":
		build(args[1:])
	case "root":
		root(args[1:])
	case "run":
		run(args[1:])
	default:
		fail(statusUsage, fmt.Errorf("lab: no command %q\n%s", args[0], usage))
	}
}

func fail(status int, err error) {
	fmt.Fprintln(os.Stderr, strings.TrimRight(err.Error(), "\n"))
	os.Exit(status)
}

func parse(flags *pflag.FlagSet, args []string) {
	flags.SetInterspersed(false)
	flags.Usage = func() { fmt.Fprintf(os.Stderr, "%s\n%s", usage, flags.FlagUsages()) }
	if err := flags.Parse(args); errors.Is(err, pflag.ErrHelp) {
		os.Exit(0)
	} else if err != nil {
		fail(statusUsage, fmt.Errorf("lab: %w", err))
	}
}

func build(args []string) {
	flags := pflag.NewFlagSet("lab build", pflag.ContinueOnError)
	parse(flags, args)
	cache, err := labvm.CacheDir()
	if err != nil {
		fail(statusLab, err)
	}
	pieces, err := labvm.Fetch(cache, os.Stderr)
	if err != nil {
		fail(statusLab, err)
	}
	fmt.Printf("Debian kernel %s in %s\n", pieces.Release, cache)
}

func root(args []string) {
	parse(pflag.NewFlagSet("lab root", pflag.ContinueOnError), args)
	cache, err := labvm.CacheDir()
	if err != nil {
		fail(statusLab, err)
	}
	image, err := labvm.RootImage(cache, os.Stderr)
	if err != nil {
		fail(statusLab, err)
	}
	fmt.Println(image)
}
