// Package confine has a process give up what it no longer needs, for good and in
// all of its threads, so that whoever takes it over, a hostile guest or peer, has
// not much in hand:
//
//	Apply ─┬─ resource limits     no core dumps, a bounded number of files
//	       ├─ jail                another root, user, group, control group; optional
//	       ├─ capabilities        none but those that Options names
//	       ├─ no_new_privs        no program that is run gives any back
//	       ├─ Landlock            no file but those that Options names (Linux 5.13)
//	       └─ seccomp             no system call but those of a VM's process
//
// Each can be applied again, with less: a process that waits for a VM confines
// itself before it reads what a stranger says, and once more when it has built
// what that describes.
//
// The seccomp filter is a program for the kernel's machine of linux/bpf_common.h,
// put together by program.go from the rules in syscalls.go, which says how that
// list was made. docs/security.md says what all of this holds back, and what not.
package confine
