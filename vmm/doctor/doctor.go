// Package doctor looks at what a host has for running and moving VMs, and says
// what it lacks for what, with the remedy. Each check tries the real thing by the
// code that the program itself uses, so that it says what run, receive and
// migrate would say; it changes no setting, and leaves nothing behind.
package doctor

import (
	"context"
	"strings"

	"microvm/migration"
)

// What a Check's Status says.
const (
	OK      = migration.FindingOK
	Warning = migration.FindingWarning // it works, and could be better
	Missing = migration.FindingMissing // what it is for does not work
)

// What a Check is for without which a host is of no use; others are for a flag
// or a command.
const (
	forBoot    = "boot"
	forMigrate = "migrate"
)

// A Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	Status string `json:"status"` // OK, Warning or Missing
	For    string `json:"for"`    // boot, migrate, or what it is of use for
	Found  string `json:"found"`
	Remedy string `json:"remedy,omitempty"`
}

// Options of Host.
type Options struct {
	TLSDir string // the folder with the files of TLS; empty: none are looked at
	Dir    string // where disks would be; empty is the working directory
}

// Host looks at this host.
func Host(ctx context.Context, o Options) []Check {
	var all []Check
	for _, look := range []func() []Check{
		lookAtKVM,
		func() []Check { return lookAtBoot(ctx) },
		lookAtUserfaultfd,
		lookAtMemory,
		lookAtState,
		func() []Check { return lookAtDisks(o.Dir) },
		lookAtNet,
		func() []Check { return lookAtTLS(o.TLSDir) },
		lookAtTime,
	} {
		all = append(all, look()...)
	}
	return all
}

// Fit tells whether a VM can be booted and moved on a host of these checks.
func Fit(checks []Check) bool {
	for _, c := range checks {
		if c.Status == Missing && (c.For == forBoot || c.For == forMigrate) {
			return false
		}
	}
	return true
}

// check is good, or says what is wrong: the errors of this program end in the
// remedy, after a semicolon.
func check(name, purpose string, err error, found string) Check {
	c := Check{Name: name, Status: OK, For: purpose, Found: found}
	if err == nil {
		return c
	}
	c.Status, c.Found = Missing, err.Error()
	if i := strings.LastIndex(c.Found, "; "); i >= 0 {
		c.Found, c.Remedy = c.Found[:i], c.Found[i+2:]
	}
	return c
}

// warn turns a check that is good into a warning.
func (c Check) warn(found, remedy string) Check {
	c.Status, c.Found, c.Remedy = Warning, found, remedy
	return c
}

// Of turns what a destination was asked into checks.
func Of(o migration.Outlook) []Check {
	var all []Check
	for _, f := range o.Findings {
		c := Check{Name: f.What, Status: f.Status, For: forMigrate, Found: f.Text}
		if f.Status != OK {
			if i := strings.LastIndex(f.Text, "; "); i >= 0 {
				c.Found, c.Remedy = f.Text[:i], f.Text[i+2:]
			}
		}
		all = append(all, c)
	}
	return all
}
