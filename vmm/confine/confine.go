package confine

import (
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/sys/unix"
)

// What happens to a system call that is not on the list.
const (
	SeccompKill = "kill" // it kills the process
	SeccompLog  = "log"  // it is made, and the kernel logs it
	SeccompOff  = "off"  // there is no filter
)

// Options say what of the process is left.
type Options struct {
	// Seccomp is one of the Seccomp constants; empty leaves what there is.
	Seccomp string
	// Again: Apply is going to be called once more, which takes some system
	// calls of its own.
	Again bool
	// Landlock has only the files of Grants be used.
	Landlock bool
	Grants   []Grant
	// Keep are the capabilities, by their bits, that stay if they are there.
	Keep uint64
	// Jail, if not nil, is entered, unless Again: then the process only joins its
	// control group.
	Jail *Jail
}

// Status is what holds of the process.
type Status struct {
	Seccomp string `json:"seccomp"`
	// Landlock is the version of its interface, 0 without it.
	Landlock int `json:"landlock"`
	// NoLandlock says why there is none, though it was asked for.
	NoLandlock string `json:"no_landlock,omitempty"`
	// Capabilities are the permitted ones, as /proc/PID/status has them.
	Capabilities string `json:"capabilities"`
	// Jail is the root that it has, on the host.
	Jail string `json:"jail,omitempty"`
	UID  int    `json:"uid"`
	GID  int    `json:"gid"`
}

// maxFiles is how many files the process may have open at once: some thousand
// connections of its guest's vsock, and everything else a hundred.
const maxFiles = 16384

// Apply confines the process: all of its threads, for good. On an error some of
// it may be in force already, and the process is to end. That the kernel has no
// Landlock is none, but said in the Status.
func Apply(o Options) (Status, error) {
	s := Status{Seccomp: o.Seccomp}
	if !letHurry() {
		o.Keep |= Capabilities(unix.CAP_SYS_NICE)
	}
	rules, err := o.prepare(&s)
	if err != nil {
		return s, err
	}
	if rules != nil {
		defer rules.close()
	}
	keep := o.Keep
	if o.enters() {
		keep |= o.Jail.capabilities()
	}
	if err := giveUp(keep); err != nil {
		return s, err
	}
	if rules != nil {
		if err := rules.restrict(); err != nil {
			return s, err
		}
		s.Landlock = rules.abi
	}
	if o.enters() {
		if err := o.Jail.enter(); err != nil {
			return s, err
		}
		if err := keepOnly(o.Keep); err != nil {
			return s, err
		}
	}
	if err := o.describe(&s); err != nil {
		return s, err
	}
	if o.Seccomp == SeccompKill || o.Seccomp == SeccompLog {
		deny := uint32(unix.SECCOMP_RET_KILL_PROCESS)
		if o.Seccomp == SeccompLog {
			deny = unix.SECCOMP_RET_LOG
		}
		if err := install(build(allowList(o.Again), deny)); err != nil {
			return s, err
		}
	}
	return s, nil
}

// enters tells whether the process goes to jail now.
func (o Options) enters() bool { return o.Jail != nil && !o.Again }

// prepare does what needs the host's files, and what the process may still do.
func (o Options) prepare(s *Status) (*ruleset, error) {
	if err := limit(); err != nil {
		return nil, err
	}
	if err := o.Jail.prepare(); err != nil {
		return nil, err
	}
	if !o.Landlock {
		return nil, nil
	}
	rules, err := newRuleset(o.Grants)
	if errors.Is(err, errNoLandlock) {
		s.NoLandlock = err.Error()
		return nil, nil
	}
	return rules, err
}

// urgentNice is how far a thread that guests wait for goes before others, as
// RLIMIT_NICE counts: down to -15.
const urgentNice = 20 + 15

// letHurry lets threads of this process go before others without CAP_SYS_NICE, if
// it may: that takes CAP_SYS_RESOURCE, which root often lacks in a container.
func letHurry() bool {
	return unix.Prlimit(0, unix.RLIMIT_NICE, &unix.Rlimit{Cur: urgentNice, Max: urgentNice}, nil) == nil
}

// limit bounds the process's resources.
func limit() error {
	if err := unix.Prlimit(0, unix.RLIMIT_CORE, &unix.Rlimit{}, nil); err != nil {
		return fmt.Errorf("RLIMIT_CORE: %w", err)
	}
	var files unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &files); err != nil {
		return fmt.Errorf("RLIMIT_NOFILE: %w", err)
	}
	files.Max = min(files.Max, maxFiles)
	files.Cur = files.Max
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &files, nil); err != nil {
		return fmt.Errorf("RLIMIT_NOFILE: %w", err)
	}
	return nil
}

// giveUp gives up privileges in every thread.
func giveUp(allBut uint64) error {
	if err := keepOnly(allBut); err != nil {
		return err
	}
	if err := onAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return nil
}

// describe says what is left.
func (o Options) describe(s *Status) error {
	caps, err := held()
	if err != nil {
		return err
	}
	s.Capabilities = fmt.Sprintf("%016x", caps.permitted)
	s.UID, s.GID = unix.Getuid(), unix.Getgid()
	if o.enters() {
		s.Jail = o.Jail.Dir
	}
	return nil
}

// Capabilities is the set of these, for Options.Keep.
func Capabilities(numbers ...int) uint64 {
	var set uint64
	for _, n := range numbers {
		set |= bits.RotateLeft64(1, n)
	}
	return set
}
