package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"microvm/vmm"
)

// runFlags are what the command line of run says.
type runFlags struct {
	flags *pflag.FlagSet

	said           vmm.Config // by flags that have a field of their own
	memory         size
	disks, nets    []string
	balloon, vsock string

	session *sessionOptions

	detach bool
	file   string
	print  bool
	tlsDir string
}

func newRunFlags(flags *pflag.FlagSet) *runFlags {
	f := &runFlags{flags: flags, memory: defaultMemory}
	flags.StringVarP(&f.said.Kernel, "kernel", "k", "", "`path` of a bzImage, ELF64 vmlinux or PVH ELF")
	flags.StringVarP(&f.said.Initrd, "initrd", "i", "", "`path` of an initial RAM disk")
	flags.StringVarP(&f.said.Cmdline, "cmdline", "p", "", "kernel command line")
	flags.IntVarP(&f.said.CPUs, "cpus", "c", 1, "number of vCPUs")
	flags.VarP(&f.memory, "memory", "m", "guest memory: bytes, or with K, M, G")
	flags.StringVar(&f.said.Name, "name", "", "the VM's name (default vmPID)")
	flags.BoolVar(&f.detach, "detach", false, "return once the VM runs, and print its name")
	flags.StringVar(&f.said.Console, "console", vmm.ConsoleStdio, "the guest's console: stdio, socket or off; with --detach socket")
	flags.BoolVar(&f.said.Hugepages, "hugepages", false, "take guest memory from the pool of 2 MiB pages")
	flags.StringArrayVar(&f.disks, "disk", nil, "`file` or block device, with options: FILE[,ro][,serial=TEXT][,queues=N]; may be repeated")
	flags.StringArrayVar(&f.nets, "net", nil, "network `card`: tap=auto|NAME[,mac=MAC][,mtu=N][,queues=N][,bridge=NAME][,owner=UID] or fd=N[,mac=MAC][,mtu=N]; may be repeated")
	flags.BoolVar(&f.said.VirtioConsole, "virtio-console", false, "give the guest a virtio console, hvc0, on the same console as the serial port")
	flags.StringVar(&f.vsock, "vsock", "", "`cid=N[,path=UDS]` of a vsock device")
	flags.StringVar(&f.balloon, "balloon", "", "`size` of a memory balloon, with options: SIZE[,deflate-on-oom][,free-page-reporting]")
	flags.BoolVar(&f.said.RNG, "rng", false, "give the guest a source of random bytes")
	flags.StringVar(&f.tlsDir, "tls-dir", "", "the only `folder` that migrations from here may have TLS's files from, and that can be read (default any)")
	f.session = addSessionFlags(flags)
	flags.StringVar(&f.file, "config", "", "`file` with a VM's config in JSON; other flags go before what it says")
	flags.BoolVar(&f.print, "print-config", false, "print the config as JSON, and run nothing")
	return f
}

const defaultMemory = 256 << 20

// ofConfig puts what a flag says into a config. Each flag but those that are no
// part of a VM has its function here.
var ofConfig = map[string]func(*runFlags, *vmm.Config) error{
	"kernel":         func(f *runFlags, c *vmm.Config) error { c.Kernel = f.said.Kernel; return nil },
	"initrd":         func(f *runFlags, c *vmm.Config) error { c.Initrd = f.said.Initrd; return nil },
	"cmdline":        func(f *runFlags, c *vmm.Config) error { c.Cmdline = f.said.Cmdline; return nil },
	"cpus":           func(f *runFlags, c *vmm.Config) error { c.CPUs = f.said.CPUs; return nil },
	"memory":         func(f *runFlags, c *vmm.Config) error { c.Memory = uint64(f.memory); return nil },
	"name":           func(f *runFlags, c *vmm.Config) error { c.Name = f.said.Name; return nil },
	"console":        func(f *runFlags, c *vmm.Config) error { c.Console = f.said.Console; return nil },
	"hugepages":      func(f *runFlags, c *vmm.Config) error { c.Hugepages = f.said.Hugepages; return nil },
	"virtio-console": func(f *runFlags, c *vmm.Config) error { c.VirtioConsole = f.said.VirtioConsole; return nil },
	"rng":            func(f *runFlags, c *vmm.Config) error { c.RNG = f.said.RNG; return nil },
	"disk": func(f *runFlags, c *vmm.Config) (err error) {
		c.Disks, err = parseAll(f.disks, vmm.ParseDisk)
		return err
	},
	"net": func(f *runFlags, c *vmm.Config) (err error) {
		c.Nets, err = parseAll(f.nets, vmm.ParseNet)
		return err
	},
	"vsock":   func(f *runFlags, c *vmm.Config) (err error) { c.Vsock, err = vmm.ParseVsock(f.vsock); return err },
	"balloon": func(f *runFlags, c *vmm.Config) (err error) { c.Balloon, err = parseBalloon(f.balloon); return err },
}

func parseAll[T any](texts []string, parse func(string) (T, error)) ([]T, error) {
	var all []T
	for _, text := range texts {
		v, err := parse(text)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// assemble makes the config: what the file says, and over it what the flags say.
func (f *runFlags) assemble() (vmm.Config, error) {
	c := vmm.Config{CPUs: 1, Memory: defaultMemory}
	if f.file != "" {
		if err := vmm.ReadConfig(f.file, &c); err != nil {
			return c, usagef("--config: %v", err)
		}
	}
	var err error
	f.flags.Visit(func(flag *pflag.Flag) {
		if set, ok := ofConfig[flag.Name]; ok && err == nil {
			if err = set(f, &c); err != nil {
				err = usagef("--%s: %v", flag.Name, err)
			}
		}
	})
	if err != nil {
		return c, err
	}
	return c, absolute(&c)
}

// complete fills in what nobody has said, for a VM that this process runs, and
// checks the whole.
func (f *runFlags) complete(c vmm.Config) (vmm.Config, error) {
	if c.Name == "" {
		c.Name = fmt.Sprintf("vm%d", os.Getpid())
	}
	if c.Console == "" {
		c.Console = vmm.ConsoleStdio
		if f.detach {
			c.Console = vmm.ConsoleSocket
		}
	}
	if f.detach && c.Console == vmm.ConsoleStdio {
		return c, usagef("--console stdio and --detach exclude each other: there is no terminal then")
	}
	for _, net := range c.Nets {
		if f.detach && net.Tap.FD != 0 {
			return c, usagef("--net fd=%d and --detach exclude each other: the VM's process does not inherit it", net.Tap.FD)
		}
	}
	if err := c.Validate(); err != nil {
		return c, usagef("%v", err)
	}
	return c, nil
}

// absolute makes paths that are relative to where this program was started say
// the same anywhere.
func absolute(c *vmm.Config) error {
	paths := []*string{&c.Kernel, &c.Initrd}
	for i := range c.Disks {
		paths = append(paths, &c.Disks[i].Path)
	}
	return allAbsolute(paths)
}

// allAbsolute does that to those that are not empty.
func allAbsolute(paths []*string) error {
	for _, path := range paths {
		if *path == "" {
			continue
		}
		whole, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = whole
	}
	return nil
}
