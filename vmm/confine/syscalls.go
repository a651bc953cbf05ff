package confine

import (
	"os"

	"golang.org/x/sys/unix"

	"microvm/devices/tap"
	"microvm/kvm"
	"microvm/migration/uffd"
)

// This file is the list of the system calls that a VM's process makes once it
// is set up. It was made in three steps:
//
//  1. A filter whose default action is SECCOMP_RET_LOG, and strace -f -c, over
//     the tests of cmd/microvm: run, receive, every mode of migration, TLS,
//     recovery, each device, each command, both consoles, each way to end.
//  2. The Go runtime's source for linux/amd64 (sys_linux_amd64.s, os_linux.go,
//     internal/runtime/syscall) for what it calls rarely: when it crashes, when
//     the clock is not to be had from the vDSO, when it is stopped and continued.
//  3. The source of this program and of the packages net and os for branches that
//     no test takes on one machine: a tap of several queues, a host without
//     io_uring, addresses to be looked up, sendfile and splice behind io.Copy.
//
// What is not here kills the process: among it execve and execveat, fork and
// vfork (clone only makes threads), ptrace, process_vm_readv and _writev, kill of
// others, mount and its kin, unshare and setns, bpf, perf_event_open, keyctl,
// open_by_handle_at, pidfd_getfd, init_module, kexec_load, reboot, iopl, personality, link,
// rename and symlink, mknod, and memory that can be executed.

// Flags of clone(2) that are set for a thread, and those that must not be.
const (
	cloneThread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD
	cloneOther  = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
		unix.CLONE_PTRACE | unix.CLONE_VFORK | unix.CLONE_PIDFD
)

// archSetFS is ARCH_SET_FS of asm/prctl.h: a thread's own storage.
const archSetFS = 0x1002

// always are the calls that may be made in any way.
var always = []uint32{
	// The Go runtime: memory, threads, signals, time, the poller.
	unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_BRK,
	unix.SYS_FUTEX, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_RESTART_SYSCALL,
	unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY,
	unix.SYS_SETITIMER, unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_DELETE,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2, unix.SYS_EVENTFD2, unix.SYS_PIPE2,
	unix.SYS_GETRANDOM, unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_GETTID, unix.SYS_UNAME,
	unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID, unix.SYS_GETRLIMIT, unix.SYS_GETRUSAGE, unix.SYS_SYSINFO,

	// Files. Which of them: Landlock says.
	unix.SYS_OPENAT, unix.SYS_CLOSE, unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV,
	unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_PREADV, unix.SYS_PWRITEV, unix.SYS_PREADV2, unix.SYS_PWRITEV2,
	unix.SYS_LSEEK, unix.SYS_FSTAT, unix.SYS_NEWFSTATAT, unix.SYS_STATX, unix.SYS_FSTATFS, unix.SYS_GETDENTS64, unix.SYS_READLINKAT, unix.SYS_GETCWD,
	unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2,
	unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE, unix.SYS_FADVISE64, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_UNLINKAT, unix.SYS_MKDIRAT,
	unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_DUP, unix.SYS_DUP3, unix.SYS_MEMFD_CREATE,
	unix.SYS_SENDFILE, unix.SYS_SPLICE, unix.SYS_COPY_FILE_RANGE,

	// Disks.
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER,

	// Sockets: the API, consoles, vsock, migrations that come and go.
	unix.SYS_CONNECT, unix.SYS_ACCEPT4, unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_SHUTDOWN,
	unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME, unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKOPT,
	unix.SYS_SENDTO, unix.SYS_RECVFROM, unix.SYS_SENDMSG, unix.SYS_RECVMSG, unix.SYS_POLL, unix.SYS_PPOLL,

	// Guest memory: userfaultfd by its call, the dirty log's barrier, and the
	// short turns of whoever waits for pages.
	unix.SYS_USERFAULTFD, unix.SYS_MEMBARRIER, unix.SYS_SCHED_GETATTR, unix.SYS_SCHED_SETATTR,
}

// sometimes are those whose arguments matter.
func sometimes() []rule {
	self := uint32(os.Getpid())
	return []rule{
		{nr: unix.SYS_IOCTL, requests: requests()},
		{nr: unix.SYS_MMAP, when: []condition{{without(2, unix.PROT_EXEC)}}},
		{nr: unix.SYS_MPROTECT, when: []condition{{without(2, unix.PROT_EXEC)}}},
		{nr: unix.SYS_CLONE, when: []condition{{check{0, cloneThread | cloneOther, cloneThread}}}},
		{nr: unix.SYS_TGKILL, when: oneOf(0, self)},
		{nr: unix.SYS_KILL, when: oneOf(0, self)},
		{nr: unix.SYS_SETPRIORITY, when: oneOf(0, unix.PRIO_PROCESS)}, // threads that guests wait for
		{nr: unix.SYS_ARCH_PRCTL, when: oneOf(0, archSetFS)},
		{nr: unix.SYS_PRCTL, when: oneOf(0, unix.PR_SET_VMA)}, // the runtime names its memory
		{nr: unix.SYS_PRLIMIT64, when: oneOf(0, 0)},           // its own
		// Not F_SETOWN and F_SETSIG, which have the kernel send signals.
		{nr: unix.SYS_FCNTL, when: oneOf(1, unix.F_DUPFD_CLOEXEC, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL,
			unix.F_OFD_GETLK, unix.F_OFD_SETLK, unix.F_OFD_SETLKW)},
		// TCP and UDP as their family's own: Multipath TCP, which Go listens with
		// but does not dial with, is nothing that Landlock knows. Netlink is for taps
		// and the zones of IPv6 addresses.
		{nr: unix.SYS_SOCKET, when: []condition{
			{is(0, unix.AF_UNIX)}, {is(0, unix.AF_INET), is(2, 0)}, {is(0, unix.AF_INET6), is(2, 0)}, {is(0, unix.AF_NETLINK), is(2, unix.NETLINK_ROUTE)},
		}},
	}
}

// requests are the ioctls, those of a running guest first.
func requests() []uint32 {
	all := append(kvm.Requests()[:1:1], uffd.Requests()...)
	all = append(append(all, kvm.Requests()[1:]...), tap.Requests()...)
	return append(all, unix.TCGETS, unix.TCSETS, unix.TIOCGWINSZ) // the terminal
}

// further are the calls by which a process that has confined itself does so once
// more.
func further() []rule {
	rules := []rule{{nr: unix.SYS_PRCTL, when: oneOf(0, unix.PR_SET_VMA, unix.PR_SET_NO_NEW_PRIVS)}}
	for _, nr := range []uint32{
		unix.SYS_CAPGET, unix.SYS_CAPSET, unix.SYS_LANDLOCK_CREATE_RULESET, unix.SYS_LANDLOCK_ADD_RULE, unix.SYS_LANDLOCK_RESTRICT_SELF,
		unix.SYS_SETGROUPS, unix.SYS_SETRESGID, unix.SYS_SETRESUID, unix.SYS_CHROOT, unix.SYS_CHDIR,
	} {
		rules = append(rules, rule{nr: nr})
	}
	return rules
}

// allowList is all of them. again is for a process that is to confine itself
// once more.
func allowList(again bool) []rule {
	byNumber := make(map[uint32]rule)
	add := func(rules ...rule) {
		for _, r := range rules {
			byNumber[r.nr] = r
		}
	}
	for _, nr := range always {
		add(rule{nr: nr})
	}
	add(sometimes()...)
	add(ofBuild()...)
	if again {
		add(further()...)
	}
	var rules []rule
	for _, r := range byNumber {
		rules = append(rules, r)
	}
	return rules
}
