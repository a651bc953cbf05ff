// Package uffd is userfaultfd(2) as typed Go: page faults on memory ranges come
// as events on a file descriptor, and the pages are put in place by ioctl.
//
//	vCPU in KVM_RUN, or a system call      reader             whoever has the page
//	touches a missing page
//	   sleeps in the kernel   ──event──▶   Wait, Read  ─ask─▶ ...
//	                                                          Copy or ZeroPage
//	   goes on                ◀──────────────────wake───────────┘
//
// Go code itself must never touch a missing page (package memslot says why);
// a thread inside a system call may.
//
// Faults taken by KVM on a guest's behalf are faults in kernel mode, so the
// descriptor is opened without UFFD_USER_MODE_ONLY, which takes privilege: see
// [Open].
//
// Structures, constants and ioctl numbers are those of linux/userfaultfd.h;
// a test compares them with the installed header.
package uffd
