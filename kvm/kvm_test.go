package kvm

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// open gives /dev/kvm, or skips the test with the remedy.
func open(t testing.TB) *System {
	t.Helper()
	s, err := Open()
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) {
		t.Skipf("this test needs KVM: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

const (
	memSize  = 1 << 20
	codeAddr = 0x1000
)

// guest is a VM with 1 MiB of memory at address 0 and one vCPU.
type guest struct {
	*VM
	mem []byte
	cpu *VCPU
}

// newGuest makes a guest. memory is shared with another guest, or nil for its own.
func newGuest(t testing.TB, s *System, irqchip bool, memory []byte) *guest {
	t.Helper()
	vm, err := s.CreateVM()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { vm.Close() })
	if memory == nil {
		memory, err = unix.Mmap(-1, 0, memSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Munmap(memory) })
	}
	must(t, vm.SetTSSAddr(0xfffbd000))
	must(t, vm.SetIdentityMapAddr(0xfffbc000))
	if irqchip {
		must(t, vm.CreateIRQChip())
		must(t, vm.CreatePIT())
	}
	must(t, vm.SetUserMemoryRegion(MemoryRegion{Size: uint64(len(memory)), HVA: hva(memory)}))
	cpu, err := vm.CreateVCPU(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cpu.Close() })
	cpuid, err := s.SupportedCPUID()
	must(t, err)
	must(t, cpu.SetCPUID(cpuid))
	return &guest{VM: vm, mem: memory, cpu: cpu}
}

// realMode puts code at codeAddr and the vCPU before it, in real mode.
func (g *guest) realMode(t testing.TB, code ...byte) {
	t.Helper()
	copy(g.mem[codeAddr:], code)
	sregs, err := g.cpu.Sregs()
	must(t, err)
	sregs.CS.Base, sregs.CS.Selector = 0, 0
	must(t, g.cpu.SetSregs(sregs))
	must(t, g.cpu.SetRegs(&Regs{RIP: codeAddr, RFLAGS: 2}))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantExit runs the vCPU until the exit that is wanted; a signal that happens to
// arrive (the Go runtime's preemption) is not one.
func (g *guest) wantExit(t testing.TB, want ExitReason) {
	t.Helper()
	for {
		r, err := g.cpu.Run()
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil || r != want {
			t.Fatalf("Run: %v, %v, internal error %+v; want exit %v", r, err, g.cpu.InternalError(), want)
		}
		return
	}
}
