package vmm

import (
	"errors"
	"fmt"
	"strings"

	"microvm/kvm"
	"microvm/migration"
)

// How a VM may end, besides powering off, being stopped or having migrated,
// for which Wait returns nil.
var (
	// ErrReset: the guest asked for a reset. A microvm is not restarted by
	// its VMM; whoever started it decides.
	ErrReset = errors.New("the guest reset itself")
	// ErrGuestPanic: the guest's kernel reported a panic through pvpanic.
	ErrGuestPanic = errors.New("the guest's kernel panicked")
	// ErrCrash is what every *CrashError is.
	ErrCrash = errors.New("the guest crashed")
)

// Exit statuses: of a process that ran a VM, and of a command that was refused
// something, or whose migration did not go well.
const (
	ExitDone       = 0
	ExitError      = 1
	ExitRefused    = 4 // before anything was done
	ExitStays      = 5 // the migration failed, the source still runs the VM
	ExitPaused     = 6 // the migration can be taken up again
	ExitLost       = 7 // it ran here, and needs memory that is gone
	ExitGuestReset = 32
	ExitGuestCrash = 33
	ExitGuestPanic = 34
	ExitTimeout    = 124
)

// ExitCode maps what Wait returned to the exit status of the process.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, new(*migration.LostError)):
		return ExitLost
	case errors.Is(err, ErrReset):
		return ExitGuestReset
	case errors.Is(err, ErrCrash):
		return ExitGuestCrash
	case errors.Is(err, ErrGuestPanic):
		return ExitGuestPanic
	}
	return ExitError
}

// A CrashError is a vCPU that cannot go on: a triple fault, an error inside
// KVM, an exit that nobody asked for.
type CrashError struct {
	CPU    int
	Reason string // what KVM said
	// Regs and Sregs are the vCPU's registers; nil when KVM would not give
	// them.
	Regs  *kvm.Regs
	Sregs *kvm.Sregs
	// Code is guest memory from the instruction pointer on; empty when it
	// cannot be translated or read.
	Code []byte
}

// Is makes errors.Is(err, ErrCrash) true.
func (e *CrashError) Is(target error) bool { return target == ErrCrash }

// Error is one line; Dump has the registers.
func (e *CrashError) Error() string {
	if e.Regs == nil {
		return fmt.Sprintf("vCPU %d: %s", e.CPU, e.Reason)
	}
	return fmt.Sprintf("vCPU %d: %s at rip %#x", e.CPU, e.Reason, e.Regs.RIP)
}

// Dump formats the registers and code bytes, a block of lines for a human.
func (e *CrashError) Dump() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v\n", e)
	if r := e.Regs; r != nil {
		fmt.Fprintf(&b, "  rip %016x  rflags %016x\n", r.RIP, r.RFLAGS)
		for _, row := range [][4]struct {
			name  string
			value uint64
		}{
			{{"rax", r.RAX}, {"rbx", r.RBX}, {"rcx", r.RCX}, {"rdx", r.RDX}},
			{{"rsi", r.RSI}, {"rdi", r.RDI}, {"rsp", r.RSP}, {"rbp", r.RBP}},
			{{"r8 ", r.R8}, {"r9 ", r.R9}, {"r10", r.R10}, {"r11", r.R11}},
			{{"r12", r.R12}, {"r13", r.R13}, {"r14", r.R14}, {"r15", r.R15}},
		} {
			for _, reg := range row {
				fmt.Fprintf(&b, "  %s %016x", reg.name, reg.value)
			}
			b.WriteByte('\n')
		}
	}
	if s := e.Sregs; s != nil {
		fmt.Fprintf(&b, "  cr0 %016x  cr2 %016x  cr3 %016x  cr4 %016x\n", s.CR0, s.CR2, s.CR3, s.CR4)
		fmt.Fprintf(&b, "  efer %x  cs %04x base %x  ss %04x  ds %04x  tr %04x\n",
			s.EFER, s.CS.Selector, s.CS.Base, s.SS.Selector, s.DS.Selector, s.TR.Selector)
		fmt.Fprintf(&b, "  gdt %x/%x  idt %x/%x\n", s.GDT.Base, s.GDT.Limit, s.IDT.Base, s.IDT.Limit)
	}
	if len(e.Code) > 0 {
		fmt.Fprintf(&b, "  code % x\n", e.Code)
	} else {
		b.WriteString("  code: not readable\n")
	}
	return b.String()
}
