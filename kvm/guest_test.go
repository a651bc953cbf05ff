package kvm

import (
	"encoding/binary"
	"errors"
	"runtime"
	"sync/atomic"
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

// Where longMode puts the page tables: they map the first GiB to itself, in
// pages of 2 MiB.
const (
	pml4Addr = 0x2000
	pdptAddr = 0x3000
	pdAddr   = 0x4000
)

// longMode puts code at codeAddr and the vCPU before it, in long mode.
func (g *guest) longMode(t testing.TB, code ...byte) {
	t.Helper()
	const (
		present, writable, large = 1 << 0, 1 << 1, 1 << 7
		cr0PE, cr0NE, cr0PG      = 1 << 0, 1 << 5, 1 << 31
		cr4PAE                   = 1 << 5
		eferLME, eferLMA         = 1 << 8, 1 << 10
	)
	copy(g.mem[codeAddr:], code)
	le := binary.LittleEndian
	le.PutUint64(g.mem[pml4Addr:], pdptAddr|present|writable)
	le.PutUint64(g.mem[pdptAddr:], pdAddr|present|writable)
	for i := range uint64(512) {
		le.PutUint64(g.mem[pdAddr+8*i:], i<<21|present|writable|large)
	}

	s, err := g.cpu.Sregs()
	must(t, err)
	s.CR0, s.CR3, s.CR4, s.EFER = cr0PE|cr0NE|cr0PG, pml4Addr, cr4PAE, eferLME|eferLMA
	s.CS = Segment{Limit: 0xffffffff, Selector: 0x08, Typ: 11, Present: 1, S: 1, L: 1, G: 1}
	data := Segment{Limit: 0xffffffff, Selector: 0x10, Typ: 3, Present: 1, DB: 1, S: 1, G: 1}
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	must(t, g.cpu.SetSregs(s))
	must(t, g.cpu.SetRegs(&Regs{RIP: codeAddr, RFLAGS: 2, RSP: 0x8000}))
}

// load64 and store64 reach guest memory while the guest runs.
func (g *guest) load64(gpa uint64) uint64     { return atomic.LoadUint64(word(g.mem, gpa)) }
func (g *guest) store64(gpa uint64, v uint64) { atomic.StoreUint64(word(g.mem, gpa), v) }

// runner runs a vCPU on a thread of its own until an exit or EINTR.
type runner struct {
	cpu  *VCPU
	tid  int
	done chan struct{}
	r    ExitReason
	err  error
}

func (g *guest) start() *runner {
	r := &runner{cpu: g.cpu, done: make(chan struct{})}
	started := make(chan struct{})
	go func() {
		defer close(r.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		r.tid = unix.Gettid()
		close(started)
		r.r, r.err = r.cpu.Run()
	}()
	<-started
	return r
}

// kick makes the vCPU leave KVM_RUN, the way a VMM does.
func (r *runner) kick(t testing.TB) {
	t.Helper()
	r.cpu.SetImmediateExit(true)
	must(t, unix.Tgkill(unix.Getpid(), r.tid, unix.SIGURG))
	<-r.done
	r.cpu.SetImmediateExit(false)
}

// runUntil runs the vCPU, through signals that are not meant for it, until cond,
// and stops it.
func (g *guest) runUntil(t testing.TB, cond func() bool) {
	t.Helper()
	for !cond() {
		r := g.start()
		for !cond() {
			select {
			case <-r.done:
			default:
				runtime.Gosched()
				continue
			}
			break
		}
		r.kick(t)
		if r.err != unix.EINTR {
			t.Fatalf("Run: %v, %v, %+v; want EINTR", r.r, r.err, g.cpu.InternalError())
		}
	}
}

// complete lets KVM finish the last exit.
func complete(t testing.TB, g *guest) {
	t.Helper()
	if r, done, err := g.cpu.CompleteExit(); err != nil || !done {
		t.Fatalf("CompleteExit: %v, %v, %v", r, done, err)
	}
}

func eventFD(t testing.TB) int {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}
