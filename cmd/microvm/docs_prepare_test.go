//go:build !race

package main

import (
	"os"
	"slices"
	"strings"
)

const anyPort = "tcp:127.0.0.1:0"

// prepare sees to what a call needs; before are the calls that come first in its line.
func (r *rehearsal) prepare(c call, before []call) {
	r.t.Helper()
	name := c.vm()
	earlier := func(command string) bool {
		return slices.ContainsFunc(before, func(b call) bool { return b.name == command && b.vm() == name })
	}
	switch {
	case c.name == "doctor" && c.said("peer"):
		r.needDestination(anyPort, c.said("tls-dir"))
	case c.name == "run":
		if name != "" && slices.Contains(r.vms(here), name) {
			r.on(here, "microvm stop "+name+" --force")
			delete(r.made, name)
		}
	case c.name == "restore":
		r.needSnapshot(c.args[0], c.said("disk"))
	case c.name == "snapshot" && !earlier("run"):
		os.RemoveAll(c.args[1])
		r.needVM(name, "--disk root.img", "")
	case !c.takesVM() || name == "" || earlier("run"):
	case c.name == "grow":
		r.needVM(name, "--disk root.img", "")
	case c.name == "balloon":
		r.needVM(name, "-m 1G --balloon 0", "")
	case c.name == "resume":
		r.needVM(name, "", "")
		if !earlier("pause") {
			r.on(here, "microvm pause "+name)
		}
	case c.name == "migrate-status", c.name == "migrate-cancel":
		r.needMigration(name)
	case c.name == "migrate" && c.said("resume"):
		r.needPaused(name)
	case c.name == "migrate":
		r.needVM(name, "", "")
		listen := anyPort
		if len(c.args) > 1 && strings.HasPrefix(c.args[1], "unix:") {
			listen = c.args[1]
		}
		r.needDestination(listen, c.said("tls-dir"))
	default:
		r.needVM(name, "", "")
	}
}

// needSnapshot has a VM a be saved in dir, which has a disk if that is said, and end.
func (r *rehearsal) needSnapshot(dir string, disk bool) {
	r.t.Helper()
	os.RemoveAll(dir)
	flags := ""
	if disk {
		flags = "--disk root.img"
	}
	r.stopAll()
	r.needVM("a", flags, "")
	r.on(here, "microvm snapshot a "+dir)
	clear(r.made)
}

// needMigration has the VM be on its way, slowly.
func (r *rehearsal) needMigration(name string) {
	r.t.Helper()
	r.needVM(name, "", "fill=1")
	r.needDestination(anyPort, false)
	r.on(here, "microvm migrate "+name+" "+r.dest.addr+" --mode precopy --bandwidth 1M --detach 2>/dev/null || microvm migrate-status "+name)
}

// needPaused has the VM be at the destination, with memory that is still here.
func (r *rehearsal) needPaused(name string) {
	r.t.Helper()
	r.needVM(name, "", "fill=1")
	r.needDestination(anyPort, false)
	p := r.start(here, "microvm migrate "+name+" "+blindRelay(r.t, r.dest.addr, 32<<20)+" --postcopy --recover 0s")
	r.ends(p, exitPaused)
}
