package kvm

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// The real-mode guests below are 16-bit code.

func TestRealModeIOMMIOHLT(t *testing.T) {
	g := newGuest(t, open(t), false, nil)
	g.realMode(t,
		0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xb0, 'A', // mov al, 'A'
		0xee,       // out dx, al
		0xe5, 0x60, // in ax, 0x60
		0xb9, 0x00, 0xf0, // mov cx, 0xf000
		0x8e, 0xc1, // mov es, cx
		0x26, 0xa3, 0x00, 0x00, // mov es:[0], ax      (0xf0000 is memory: nothing to see)
		0xb9, 0xff, 0xff, // mov cx, 0xffff
		0x8e, 0xc1, // mov es, cx
		0x26, 0xa3, 0x20, 0x00, // mov es:[0x20], ax   (0x100010: past memory)
		0x26, 0x8a, 0x1e, 0x21, 0x00, // mov bl, es:[0x21]
		0xf4, // hlt
	)

	g.wantExit(t, ExitIO)
	if e := g.cpu.IO(); !e.Write || e.Port != 0x3f8 || e.Size != 1 || e.Count != 1 || !bytes.Equal(e.Data, []byte("A")) {
		t.Errorf("OUT: got %+v", e)
	}
	g.wantExit(t, ExitIO)
	e := g.cpu.IO()
	if e.Write || e.Port != 0x60 || e.Size != 2 || len(e.Data) != 2 {
		t.Errorf("IN: got %+v", e)
	}
	copy(e.Data, []byte{0x34, 0x12})
	g.wantExit(t, ExitMMIO)
	if m := g.cpu.MMIO(); !m.Write || m.Addr != 0x100010 || !bytes.Equal(m.Data, []byte{0x34, 0x12}) {
		t.Errorf("MMIO write: got %+v", m)
	}
	g.wantExit(t, ExitMMIO)
	m := g.cpu.MMIO()
	if m.Write || m.Addr != 0x100011 || len(m.Data) != 1 {
		t.Errorf("MMIO read: got %+v", m)
	}
	m.Data[0] = 0x77
	g.wantExit(t, ExitHLT)
	regs, err := g.cpu.Regs()
	must(t, err)
	if regs.RAX != 0x1234 || regs.RBX != 0x77 {
		t.Errorf("at HLT: RAX %#x RBX %#x, want 0x1234 and 0x77", regs.RAX, regs.RBX)
	}
	if got := g.mem[0xf0000:0xf0002]; !bytes.Equal(got, []byte{0x34, 0x12}) {
		t.Errorf("memory at 0xf0000: % x, want 34 12", got)
	}
}

func TestLongModeIOMMIOHLT(t *testing.T) {
	g := newGuest(t, open(t), false, nil)
	g.longMode(t,
		0x48, 0xb8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, // mov rax, 0x1122334455667788
		0x48, 0x89, 0x04, 0x25, 0x08, 0x00, 0x10, 0x00, // mov [0x100008], rax
		0x48, 0x8b, 0x0c, 0x25, 0x10, 0x00, 0x10, 0x00, // mov rcx, [0x100010]
		0xe6, 0x80, // out 0x80, al
		0xf4, // hlt
	)
	g.wantExit(t, ExitMMIO)
	want := []byte{0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11}
	if m := g.cpu.MMIO(); !m.Write || m.Addr != 0x100008 || !bytes.Equal(m.Data, want) {
		t.Errorf("MMIO write: got %+v", m)
	}
	g.wantExit(t, ExitMMIO)
	m := g.cpu.MMIO()
	if m.Write || m.Addr != 0x100010 || len(m.Data) != 8 {
		t.Errorf("MMIO read: got %+v", m)
	}
	binary.LittleEndian.PutUint64(m.Data, 0xdeadbeefcafef00d)
	g.wantExit(t, ExitIO)
	if e := g.cpu.IO(); !e.Write || e.Port != 0x80 || !bytes.Equal(e.Data, []byte{0x88}) {
		t.Errorf("OUT: got %+v", e)
	}
	g.wantExit(t, ExitHLT)
	regs, err := g.cpu.Regs()
	must(t, err)
	if regs.RCX != 0xdeadbeefcafef00d {
		t.Errorf("at HLT: RCX %#x, want what the MMIO read was answered", regs.RCX)
	}
	if gpa, ok, err := g.cpu.Translate(0x201234); err != nil || !ok || gpa != 0x201234 {
		t.Errorf("Translate: %#x, %v, %v; want the address itself", gpa, ok, err)
	}
}

func TestStringIO(t *testing.T) {
	g := newGuest(t, open(t), false, nil)
	const text = "hello"
	copy(g.mem[0x5000:], text)
	g.longMode(t,
		0xbe, 0x00, 0x50, 0x00, 0x00, // mov esi, 0x5000
		0xb9, 0x05, 0x00, 0x00, 0x00, // mov ecx, 5
		0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xf3, 0x6e, // rep outsb
		0xf4, // hlt
	)
	var got []byte
	for len(got) < len(text) {
		g.wantExit(t, ExitIO)
		e := g.cpu.IO()
		if !e.Write || e.Size != 1 || len(e.Data) != e.Count {
			t.Fatalf("OUTS: got %+v", e)
		}
		got = append(got, e.Data...)
	}
	g.wantExit(t, ExitHLT)
	if string(got) != text {
		t.Errorf("OUTS: got %q, want %q", got, text)
	}
}

// count is a guest that counts in memory and never exits.
var count = []byte{
	0x48, 0xff, 0x04, 0x25, 0x00, 0x60, 0x00, 0x00, // inc qword [0x6000]
	0xeb, 0xf6, // jmp to it
}

const counterAddr = 0x6000

func TestImmediateExit(t *testing.T) {
	g := newGuest(t, open(t), false, nil)
	g.longMode(t, count...)
	g.cpu.SetImmediateExit(true)
	for range 3 {
		if _, err := g.cpu.Run(); err != unix.EINTR {
			t.Fatalf("Run: %v, want EINTR", err)
		}
	}
	if n := g.load64(counterAddr); n != 0 {
		t.Errorf("the guest ran: it counted to %d", n)
	}
	g.cpu.SetImmediateExit(false)
	g.runUntil(t, func() bool { return g.load64(counterAddr) > 0 })
}

// TestSignalStopsRun: without it, a VM could not be paused or migrated.
func TestSignalStopsRun(t *testing.T) {
	g := newGuest(t, open(t), false, nil)
	g.longMode(t, count...)
	r := g.start()
	for g.load64(counterAddr) == 0 { // the guest is running
		runtime.Gosched()
	}
	must(t, unix.Tgkill(unix.Getpid(), r.tid, unix.SIGURG))
	<-r.done
	if r.err != unix.EINTR || r.r != ExitIntr {
		t.Errorf("Run: %v, %v; want INTR, EINTR", r.r, r.err)
	}
}

// TestKick races the kick against KVM_RUN: none may get lost.
func TestKick(t *testing.T) {
	g := newGuest(t, open(t), false, nil)
	g.longMode(t, count...)
	for range 200 {
		r := g.start()
		r.kick(t)
		if r.err != unix.EINTR {
			t.Fatalf("Run: %v, %v; want EINTR", r.r, r.err)
		}
	}
}

func TestRunDoesNotAllocate(t *testing.T) {
	g := newGuest(t, open(t), false, nil)
	g.longMode(t,
		0xe4, 0x60, // in al, 0x60
		0x89, 0x04, 0x25, 0x00, 0x00, 0x10, 0x00, // mov [0x100000], eax
		0x8b, 0x0c, 0x25, 0x04, 0x00, 0x10, 0x00, // mov ecx, [0x100004]
		0xe6, 0x80, // out 0x80, al
		0xeb, 0xec, // jmp to the start
	)
	var ios, mmios, others int
	n := testing.AllocsPerRun(1000, func() {
		switch r, err := g.cpu.Run(); {
		case err == unix.EINTR:
		case err == nil && r == ExitIO:
			ios++
			if e := g.cpu.IO(); !e.Write {
				e.Data[0] = 1
			}
		case err == nil && r == ExitMMIO:
			mmios++
			if m := g.cpu.MMIO(); !m.Write {
				m.Data[0] = 1
			}
		default:
			others++
		}
		g.cpu.SetImmediateExit(true)
		_, err := g.cpu.Run() // EINTR is no allocation either
		g.cpu.SetImmediateExit(false)
		if err != unix.EINTR {
			others++
		}
	})
	if n != 0 || ios == 0 || mmios == 0 || others != 0 {
		t.Errorf("%v allocations a run; %d IO, %d MMIO, %d other exits", n, ios, mmios, others)
	}
}

// TestCompleteExit: without it, a vCPU saved after an exit would do the
// instruction again, or take an answer that is not there, on the other side.
func TestCompleteExit(t *testing.T) {
	g := newGuest(t, open(t), true, nil)
	g.longMode(t, 0xe4, 0x60, 0xe6, 0x80) // in al, 0x60; out 0x80, al
	g.wantExit(t, ExitIO)
	g.cpu.IO().Data[0] = 0x42
	if _, err := g.cpu.SaveState(); err == nil {
		t.Error("SaveState before CompleteExit: no error")
	}
	for range 2 { // again does nothing
		if r, done, err := g.cpu.CompleteExit(); err != nil || !done {
			t.Fatalf("CompleteExit: %v, %v, %v", r, done, err)
		}
	}
	s, err := g.cpu.SaveState()
	must(t, err)
	if s.Regs.RIP != codeAddr+2 || s.Regs.RAX != 0x42 {
		t.Errorf("RIP %#x RAX %#x, want %#x and 0x42", s.Regs.RIP, s.Regs.RAX, codeAddr+2)
	}
}

func TestCompleteExitOfSplitAccess(t *testing.T) {
	g := newGuest(t, open(t), true, nil)
	g.longMode(t, 0x48, 0x89, 0x04, 0x25, 0xfc, 0x0f, 0x10, 0x00) // mov [0x100ffc], rax: across pages
	g.wantExit(t, ExitMMIO)
	if m := g.cpu.MMIO(); m.Addr != 0x100ffc || len(m.Data) != 4 {
		t.Errorf("first part: %+v", m)
	}
	r, done, err := g.cpu.CompleteExit()
	if err != nil || done || r != ExitMMIO {
		t.Fatalf("CompleteExit: %v, %v, %v; want a second MMIO", r, done, err)
	}
	if m := g.cpu.MMIO(); m.Addr != 0x101000 || len(m.Data) != 4 {
		t.Errorf("second part: %+v", m)
	}
	if _, err := g.cpu.SaveState(); err == nil {
		t.Error("SaveState after the first part: no error")
	}
	if r, done, err := g.cpu.CompleteExit(); err != nil || !done {
		t.Fatalf("CompleteExit: %v, %v, %v", r, done, err)
	}
	regs, err := g.cpu.Regs()
	must(t, err)
	if regs.RIP != codeAddr+8 {
		t.Errorf("RIP %#x, want %#x", regs.RIP, codeAddr+8)
	}
}

func TestInternalErrorNamesTheInstruction(t *testing.T) {
	g := newGuest(t, open(t), false, nil)
	g.longMode(t, 0xe6, 0x80)
	g.wantExit(t, ExitIO)
	le := binary.LittleEndian
	le.PutUint32(g.cpu.run[offNumber:], 1)
	le.PutUint32(g.cpu.run[offNData:], 99) // more than there can be
	le.PutUint64(g.cpu.run[offData:], 1)   // instruction bytes are valid
	copy(g.cpu.run[offData+8:], []byte{2, 0xcd, 0x03})
	e := g.cpu.InternalError()
	if e.Suberror != 1 || len(e.Data) != maxNData || !bytes.Equal(e.Insn, []byte{0xcd, 0x03}) {
		t.Errorf("got %+v", e)
	}
	if e := g.cpu.SystemEvent(); e.Type != 1 || len(e.Data) != maxNData {
		t.Errorf("got %+v", e)
	}
	le.PutUint64(g.cpu.run[offFailReason:], 7)
	le.PutUint32(g.cpu.run[offFailCPU:], 3)
	if e := g.cpu.FailEntry(); e != (FailEntry{HardwareReason: 7, HostCPU: 3}) {
		t.Errorf("got %+v", e)
	}
}
