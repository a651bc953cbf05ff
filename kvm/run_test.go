package kvm

import (
	"bytes"
	"testing"
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
