package confine

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"
)

// A rule lets a system call be made in any of the ways that when lists, or in
// every way if that is empty.
type rule struct {
	nr   uint32
	when []condition
	// requests, if there are any, are what the second argument, an ioctl's
	// request, has to be one of. The first of them are found first.
	requests []uint32
}

// A condition is a list of checks that all have to hold.
type condition []check

// A check compares the bits in mask of an argument with value. Only the lower
// half of an argument is looked at: it is all that the kernel takes of those that
// the rules check, or the bits in question are there.
type check struct {
	arg         int
	mask, value uint32
}

// is checks for a value.
func is(arg int, value uint32) check { return check{arg, ^uint32(0), value} }

// without checks that none of the bits is set.
func without(arg int, bits uint32) check { return check{arg, bits, 0} }

// oneOf is a rule's ways for an argument that has to be one of values.
func oneOf(arg int, values ...uint32) []condition {
	var when []condition
	for _, v := range values {
		when = append(when, condition{is(arg, v)})
	}
	return when
}

// Offsets in struct seccomp_data of linux/seccomp.h.
const (
	offNR   = 0
	offArch = 4
	offArgs = 16
)

// code is a piece of a program. It goes on behind its end where it does not
// return, so that pieces can be strung together.
type code []unix.SockFilter

func returns(action uint32) code {
	return code{{Code: unix.BPF_RET | unix.BPF_K, K: action}}
}

func load(offset uint32) code {
	return code{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}}
}

// maxJump is how far a conditional jump reaches.
const maxJump = 255

// branch does then if the comparison of what was loaded with k holds; otherwise
// it goes on behind that.
func branch(comparison uint16, k uint32, then code) code {
	jump := unix.SockFilter{Code: unix.BPF_JMP | comparison | unix.BPF_K, K: k}
	if len(then) <= maxJump {
		jump.Jf = uint8(len(then))
		return append(code{jump}, then...)
	}
	// One that holds leaps over the long jump.
	jump.Jt = 1
	long := unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(then))}
	return append(code{jump, long}, then...)
}

// build makes the program: deny is what happens to a call that no rule allows.
// ioctl, which a vCPU makes at each exit, comes first; the others are searched
// for in halves, and where a rule does not look at arguments the kernel remembers
// the answer and does not run the program at all (since Linux 5.11).
func build(rules []rule, deny uint32) code {
	// The numbers mean other calls in another architecture's table: that of
	// 32-bit code, int 0x80.
	rules = slices.SortedFunc(slices.Values(rules), func(a, b rule) int { return cmp.Compare(a.nr, b.nr) })
	native := load(offNR)
	if i := slices.IndexFunc(rules, func(r rule) bool { return r.nr == unix.SYS_IOCTL }); i >= 0 {
		native = append(native, branch(unix.BPF_JEQ, unix.SYS_IOCTL, rules[i].code(deny))...)
		rules = slices.Delete(rules, i, i+1)
	}
	native = append(native, search(rules, deny)...)
	out := append(load(offArch), branch(unix.BPF_JEQ, unix.AUDIT_ARCH_X86_64, native)...)
	return append(out, returns(unix.SECCOMP_RET_KILL_PROCESS)...)
}

// search finds the rule for the number that was loaded. It always returns.
func search(rules []rule, deny uint32) code {
	const few = 3
	if len(rules) <= few {
		var out code
		for _, r := range rules {
			out = append(out, branch(unix.BPF_JEQ, r.nr, r.code(deny))...)
		}
		return append(out, returns(deny)...)
	}
	half := len(rules) / 2
	upper := branch(unix.BPF_JGE, rules[half].nr, search(rules[half:], deny))
	return append(upper, search(rules[:half], deny)...)
}

// code decides about a call. It always returns.
func (r rule) code(deny uint32) code {
	switch {
	case len(r.requests) > 0:
		return r.ioctl(deny)
	case len(r.when) == 0:
		return returns(unix.SECCOMP_RET_ALLOW)
	}
	var out code
	for _, c := range r.when {
		out = append(out, c.code()...)
	}
	return append(out, returns(deny)...)
}

// code returns if the condition holds.
func (c condition) code() code {
	then := returns(unix.SECCOMP_RET_ALLOW)
	for _, k := range slices.Backward(c) {
		piece := load(offArgs + 8*uint32(k.arg))
		if k.mask != ^uint32(0) {
			piece = append(piece, unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: k.mask})
		}
		then = append(piece, branch(unix.BPF_JEQ, k.value, then)...)
	}
	return then
}

// hotRequests is how many of the requests are compared one after the other
// before the rest is searched.
const hotRequests = 2

func (r rule) ioctl(deny uint32) code {
	out := load(offArgs + 8)
	hot, rest := r.requests[:min(hotRequests, len(r.requests))], r.requests[min(hotRequests, len(r.requests)):]
	for _, request := range hot {
		out = append(out, branch(unix.BPF_JEQ, request, returns(unix.SECCOMP_RET_ALLOW))...)
	}
	var others []rule
	for _, request := range slices.Compact(slices.Sorted(slices.Values(rest))) {
		others = append(others, rule{nr: request})
	}
	return append(out, search(others, deny)...)
}
