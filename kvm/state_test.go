package kvm

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// move saves g, carries its state through the wire form, and loads it into a
// new VM that has the same memory.
func (g *guest) move(t testing.TB, s *System) *guest {
	t.Helper()
	vm, cpu := g.save(t)
	to := newGuest(t, s, true, g.mem)
	to.load(t, vm, cpu)
	return to
}

func (g *guest) save(t testing.TB) (*VMState, *VCPUState) {
	t.Helper()
	vm, err := g.SaveState()
	must(t, err)
	cpu, err := g.cpu.SaveState()
	must(t, err)
	return carry(t, vm, new(VMState)), carry(t, cpu, new(VCPUState))
}

func (g *guest) load(t testing.TB, vm *VMState, cpu *VCPUState) {
	t.Helper()
	must(t, g.LoadState(vm))
	must(t, g.cpu.LoadState(cpu))
}

// carry marshals from and unmarshals to, which must come out equal.
func carry[T interface {
	MarshalBinary() ([]byte, error)
	UnmarshalBinary([]byte) error
}](t testing.TB, from, to T) T {
	t.Helper()
	b, err := from.MarshalBinary()
	must(t, err)
	must(t, to.UnmarshalBinary(b))
	if !reflect.DeepEqual(from, to) {
		t.Errorf("the wire form changed the state:\nfrom %+v\nto   %+v", from, to)
	}
	return to
}

// countTo is a guest that keeps one count in RAX, RBX and memory until it is the
// limit in memory.
var countTo = []byte{
	0x48, 0xff, 0xc0, // inc rax
	0x48, 0x89, 0x04, 0x25, 0x00, 0x60, 0x00, 0x00, // mov [0x6000], rax
	0x48, 0x8d, 0x1c, 0x40, // lea rbx, [rax+rax*2]
	0x48, 0x3b, 0x04, 0x25, 0x08, 0x60, 0x00, 0x00, // cmp rax, [0x6008]
	0x72, 0xe7, // jb to the start
	0xe6, 0x80, // out 0x80, al
}

const limitAddr = counterAddr + 8

// TestCountGoesOnAcrossVMs: without it, a migrated guest would repeat or skip
// instructions, or lose registers.
func TestCountGoesOnAcrossVMs(t *testing.T) {
	s := open(t)
	g := newGuest(t, s, true, nil)
	g.longMode(t, countTo...)
	g.store64(limitAddr, 1<<62)

	// State that the loop does not touch must come along too.
	marker := []byte("sixteen bytes!!!")
	area, err := g.cpu.xsave()
	must(t, err)
	copy(area[160:], marker) // XMM0 in the legacy area
	area[512] |= 2           // XSTATE_BV: SSE is in use
	must(t, g.cpu.setXSave(area))
	must(t, call(g.cpu, setDebugRegs, &DebugRegs{DB: [4]uint64{0x1234}, DR6: 0xffff0ff0, DR7: 0x400}))
	must(t, g.cpu.writeMSRs([]MSR{{Index: msrLSTAR, Value: 0xffff800000001000}, {Index: 0x4b564d01, Value: 0x7001}}))

	for range 5 {
		seen := g.load64(counterAddr)
		g.runUntil(t, func() bool { return g.load64(counterAddr) > seen })
		g = g.move(t, s)
		r, err := g.cpu.Regs()
		must(t, err)
		if n := g.load64(counterAddr); n != r.RAX && n != r.RAX-1 {
			t.Fatalf("after a move: RAX %d, memory %d", r.RAX, n)
		}
	}
	limit := g.load64(counterAddr) + 10_000
	g.store64(limitAddr, limit)
	g.wantExit(t, ExitIO)

	r, err := g.cpu.Regs()
	must(t, err)
	if n := g.load64(counterAddr); r.RAX != limit || r.RBX != 3*limit || n != limit {
		t.Errorf("at the end: RAX %d RBX %d memory %d, want %d, three times it, and it", r.RAX, r.RBX, n, limit)
	}
	area, err = g.cpu.xsave()
	must(t, err)
	if got := area[160:176]; !bytes.Equal(got, marker) {
		t.Errorf("XMM0: %q, want %q", got, marker)
	}
	d, err := get[DebugRegs](g.cpu, getDebugRegs)
	must(t, err)
	if d.DB[0] != 0x1234 {
		t.Errorf("DR0: %#x, want 0x1234", d.DB[0])
	}
	m, err := g.cpu.readMSRs([]msrToSave{{index: msrLSTAR}, {index: 0x4b564d01}})
	must(t, err)
	if m[0].Value != 0xffff800000001000 || m[1].Value != 0x7001 {
		t.Errorf("LSTAR, kvmclock: %#x", m)
	}
}

// TestSavedTwiceIsEqual: what a load puts in, the next save must find.
func TestSavedTwiceIsEqual(t *testing.T) {
	s := open(t)
	g := newGuest(t, s, true, nil)
	picGuest(t, g)
	complete(t, g)
	enableLAPIC(t, g)
	vm1, cpu1 := g.save(t)
	g = newGuest(t, s, true, g.mem)
	g.load(t, vm1, cpu1)
	vm2, cpu2 := g.save(t)

	// What moves by itself.
	for _, s := range []*VMState{vm1, vm2} {
		s.Clock = ClockData{}
		for i := range s.PIT.Channels {
			s.PIT.Channels[i].CountLoadTime = 0
		}
	}
	cpu1.TSC, cpu2.TSC = TSCState{}, TSCState{}
	wantEqual(t, *vm2, *vm1)
	wantEqual(t, *cpu2, *cpu1)
}

// wantEqual compares two states field by field.
func wantEqual[T any](t *testing.T, got, want T) {
	t.Helper()
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range g.NumField() {
		if !reflect.DeepEqual(g.Field(i).Interface(), w.Field(i).Interface()) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", g.Type().Field(i).Name, g.Field(i), w.Field(i))
		}
	}
}

// TestLoadInPlace: a VM must be able to go back to its own saved state.
func TestLoadInPlace(t *testing.T) {
	g := newGuest(t, open(t), true, nil)
	g.longMode(t, countTo...)
	g.store64(limitAddr, 1000)
	g.wantExit(t, ExitIO)
	complete(t, g)
	vm, cpu := g.save(t)
	must(t, g.cpu.SetRegs(&Regs{RIP: 1, RFLAGS: 2}))
	g.load(t, vm, cpu)
	r, err := g.cpu.Regs()
	must(t, err)
	if *r != cpu.Regs {
		t.Errorf("registers: %+v, want %+v", r, cpu.Regs)
	}
}

// TestPendingInterruptSurvivesMove: without it, a migrated guest would wait for
// ever for a disk or a timer.
func TestPendingInterruptSurvivesMove(t *testing.T) {
	s := open(t)
	g := newGuest(t, s, true, nil)
	picGuest(t, g) // interrupts are still off
	complete(t, g)
	fd := eventFD(t)
	must(t, g.AssignIRQFD(fd, 3))
	signal(t, fd)
	must(t, g.DeassignIRQFD(fd, 3)) // waits until the signal has been handled
	g = g.move(t, s)
	g.wantOut(t, 0x81, picMasterBase+3)
}

// TestIOAPICRedelivers: an interrupt that the I/O APIC holds back at the save
// goes to a local APIC when the state is loaded, and the vCPU's own state must
// not wipe it out.
func TestIOAPICRedelivers(t *testing.T) {
	const (
		pin, vector = 5, 0x31
		level       = 1 << 15
		offIRR      = 16 // in struct kvm_ioapic_state
		offRedirect = 24
		lapicIRR    = 0x200
	)
	s := open(t)
	g := newGuest(t, s, true, nil)
	enableLAPIC(t, g)
	vm, cpu := g.save(t)
	le := binary.LittleEndian
	le.PutUint32(vm.IOAPIC.Chip[offIRR:], 1<<pin)
	le.PutUint64(vm.IOAPIC.Chip[offRedirect+8*pin:], vector|level)
	g = newGuest(t, s, true, g.mem)
	g.load(t, vm, cpu)
	l, err := get[LAPICState](g.cpu, getLAPIC)
	must(t, err)
	irr := le.Uint32(l.Regs[lapicIRR+vector/32*16:])
	if irr&(1<<(vector%32)) == 0 {
		t.Errorf("vector %#x is not pending in the local APIC after the load", vector)
	}
}

func TestLoadWantsTheVMFirst(t *testing.T) {
	s := open(t)
	g := newGuest(t, s, true, nil)
	cpu, err := g.cpu.SaveState()
	must(t, err)
	if err := newGuest(t, s, true, nil).cpu.LoadState(cpu); err == nil || !strings.Contains(err.Error(), "VM's state") {
		t.Errorf("got %v", err)
	}
}

// TestLoadRefuses: what KVM or we refuse is an error that says what it was.
func TestLoadRefuses(t *testing.T) {
	s := open(t)
	g := newGuest(t, s, true, nil)
	vm, good := g.save(t)
	for _, c := range []struct {
		name string
		harm func(*VCPUState)
		want string
	}{
		{"reserved bit of CR4", func(s *VCPUState) { s.Sregs.CR4 = 1 << 40 }, "KVM_SET_SREGS2: invalid argument"},
		{"MSR that does not exist", func(s *VCPUState) { s.MSRs = append(s.MSRs, MSR{Index: 0xdead, Value: 1}) },
			"MSR 0xdead, which this host does not have for this guest, refused the value 0x1"},
		{"MSR that is read-only", func(s *VCPUState) { s.MSRs = append(s.MSRs, MSR{Index: 0xfe, Value: 1}) },
			"MSR 0xfe, which is 0x"},
		{"processor state that is not here", func(s *VCPUState) { s.XSave = append(s.XSave, 1) }, "processor state that this host lacks"},
		{"TSC frequency", func(s *VCPUState) { s.TSC.KHz = 1 }, "TSC"},
		{"MP state", func(s *VCPUState) { s.MPState = 77 }, "KVM_SET_MP_STATE"},
		{"event flags", func(s *VCPUState) { s.Events.Flags = 1 << 31 }, "KVM_SET_VCPU_EVENTS"},
	} {
		bad := *good
		bad.MSRs, bad.XSave = slices.Clone(good.MSRs), slices.Clone(good.XSave)
		c.harm(&bad)
		to := newGuest(t, s, true, g.mem)
		must(t, to.LoadState(vm))
		if err := to.cpu.LoadState(&bad); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want ...%s...", c.name, err, c.want)
		}
	}
}

func TestNestedVirtualizationIsNotSaved(t *testing.T) {
	v := &VCPU{id: 1}
	for _, s := range []Sregs2{{CR4: 1 << 13}, {EFER: 1 << 12}} {
		if err := v.checkNested(&s); err == nil || !strings.Contains(err.Error(), "vCPU 1: save: the guest has turned on nested") {
			t.Errorf("%+v: got %v", s, err)
		}
	}
}

// TestWaitingCPUSurvivesMove: a guest that moves while it boots has CPUs that
// still wait for INIT.
func TestWaitingCPUSurvivesMove(t *testing.T) {
	s := open(t)
	two := func(memory []byte) (*guest, *VCPU) {
		g := newGuest(t, s, true, memory)
		second, err := g.CreateVCPU(1)
		must(t, err)
		t.Cleanup(func() { second.Close() })
		return g, second
	}
	from, waiting := two(nil)
	vm, first := from.save(t)
	if r, done, err := waiting.CompleteExit(); err != nil || !done {
		t.Fatalf("CompleteExit of a CPU that waits: %v, %v, %v", r, done, err)
	}
	second, err := waiting.SaveState()
	must(t, err)

	to, arrived := two(from.mem)
	to.load(t, vm, first)
	must(t, arrived.LoadState(second))
	if m, err := arrived.MPState(); err != nil || m != MPStateUninitialized {
		t.Errorf("MP state %v, %v; want %v", m, err, MPStateUninitialized)
	}
	if m, err := to.cpu.MPState(); err != nil || m != MPStateRunnable {
		t.Errorf("the boot CPU's MP state %v, %v; want %v", m, err, MPStateRunnable)
	}
}
