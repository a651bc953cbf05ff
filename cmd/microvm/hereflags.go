package main

import (
	"github.com/spf13/pflag"

	"microvm/vmm"
)

// hereFlags say what is different on this host of a VM that was started on another, or
// at another time. receive and restore share them.
type hereFlags struct {
	name    string
	console string
	disks   []string
	vsock   string
	// What check makes of the flags' texts.
	hugepages *bool
	nets      []vmm.TapConfig

	pages    string
	netTexts []string
}

// addHereFlags adds them.
func addHereFlags(flags *pflag.FlagSet) *hereFlags {
	h := &hereFlags{}
	flags.StringVar(&h.name, "name", "", "the VM's name here (default the name it had)")
	flags.StringVar(&h.console, "console", vmm.ConsoleStdio, "the guest's console: stdio, socket or off")
	flags.StringVar(&h.pages, "hugepages", "same", "guest memory from the pool of 2 MiB pages: same as it was, on or off")
	flags.StringVar(&h.vsock, "vsock", "", "`path` of the unix socket of the VM's vsock device on this host (default in its state directory)")
	flags.StringArrayVar(&h.netTexts, "net", nil, "the VM's next network card's `side` on this host: tap=auto|NAME[,bridge=NAME][,owner=UID] or fd=N; may be repeated")
	flags.StringArrayVar(&h.disks, "disk", nil, "the VM's next disk's `file` on this host; may be repeated")
	return h
}

// pagesHere are the values of --hugepages.
var pagesHere = map[string]*bool{"same": nil, "on": new(true), "off": new(false)}

// check refuses what makes no sense, and has paths say the same anywhere.
func (h *hereFlags) check() error {
	switch h.console {
	case vmm.ConsoleStdio, vmm.ConsoleSocket, vmm.ConsoleOff:
	default:
		return usagef("--console %s: has to be %s, %s or %s", h.console, vmm.ConsoleStdio, vmm.ConsoleSocket, vmm.ConsoleOff)
	}
	var ok bool
	if h.hugepages, ok = pagesHere[h.pages]; !ok {
		return usagef("--hugepages %s: has to be same, on or off", h.pages)
	}
	if h.name != "" {
		if err := vmm.ValidateName(h.name); err != nil {
			return usagef("%v", err)
		}
	}
	var err error
	if h.nets, err = parseAll(h.netTexts, vmm.ParseTap); err != nil {
		return usagef("--net: %v", err)
	}
	paths := []*string{&h.vsock}
	for i := range h.disks {
		paths = append(paths, &h.disks[i])
	}
	return allAbsolute(paths)
}
