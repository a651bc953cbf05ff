package main

import (
	"path/filepath"

	"github.com/spf13/pflag"

	"microvm/vmm"
	"microvm/vmm/confine"
)

// confineFlags are the flags of run and receive that say how the VM's process is
// confined.
type confineFlags struct{ seccomp, landlock, jail string }

func newConfineFlags(flags *pflag.FlagSet) *confineFlags {
	f := &confineFlags{}
	flags.StringVar(&f.seccomp, "seccomp", confine.SeccompKill, "a system call that this program never makes: kill its process, log it, or off")
	flags.StringVar(&f.landlock, "landlock", "on", "only let it use the files that the VM needs, if the kernel can: on or off")
	flags.StringVar(&f.jail, "jail", "", "once the VM is built, go to another root, user, group and control group: `DIR,uid=N,gid=N[,cgroup=PATH]`")
	return f
}

// parse makes of them what vmm takes.
func (f *confineFlags) parse() (*vmm.Confinement, error) {
	if f.seccomp != confine.SeccompKill && f.seccomp != confine.SeccompLog && f.seccomp != confine.SeccompOff {
		return nil, usagef("--seccomp %s: has to be kill, log or off", f.seccomp)
	}
	if f.landlock != "on" && f.landlock != "off" {
		return nil, usagef("--landlock %s: has to be on or off", f.landlock)
	}
	c := &vmm.Confinement{Seccomp: f.seccomp, NoLandlock: f.landlock == "off"}
	if f.jail != "" {
		var err error
		if c.Jail, err = confine.ParseJail(f.jail); err != nil {
			return nil, usagef("--jail: %v", err)
		}
	}
	return c, nil
}

// onlyTLS has nothing of the host be read but the folder that migrations have
// TLS's files from, if that is known.
func onlyTLS(c *vmm.Confinement, dir string) (err error) {
	if dir != "" {
		c.TLSDir, err = filepath.Abs(dir)
	}
	return err
}
