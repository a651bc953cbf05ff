package kvm

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// Vectors at which picGuest has its PICs deliver IRQ 0 and IRQ 8.
const (
	picMasterBase = 0x20
	handlerAddr   = 0x1800
)

// picGuest is a real-mode guest that sets up the PICs, with every line open, does
// OUT 0x80, then waits for interrupts with HLT. Master vectors 0x20 to 0x27 go to a
// handler that does OUT 0x81 with the vector, EOI and IRET.
func picGuest(t testing.TB, g *guest) {
	t.Helper()
	g.realMode(t,
		0xb0, 0x11, 0xe6, 0x20, // ICW1: edge, cascade, ICW4 follows
		0xb0, picMasterBase, 0xe6, 0x21, // ICW2: vector base
		0xb0, 0x04, 0xe6, 0x21, // ICW3
		0xb0, 0x01, 0xe6, 0x21, // ICW4: 8086 mode
		0xb0, 0x00, 0xe6, 0x21, // nothing masked
		0x31, 0xc0, // xor ax, ax
		0x8e, 0xd0, // mov ss, ax
		0xbc, 0x00, 0x70, // mov sp, 0x7000
		0xe6, 0x80, // out 0x80, al
		0xfb,       // sti
		0xf4,       // hlt
		0xeb, 0xfd, // jmp to hlt
	)
	for i := range uint16(8) {
		vector := picMasterBase + i
		at := handlerAddr + 16*i
		copy(g.mem[at:], []byte{
			0xb0, byte(vector), // mov al, vector
			0xe6, 0x81, // out 0x81, al
			0xb0, 0x20, 0xe6, 0x20, // EOI
			0xcf, // iret
		})
		binary.LittleEndian.PutUint16(g.mem[4*vector:], at)
		binary.LittleEndian.PutUint16(g.mem[4*vector+2:], 0)
	}
	g.wantOut(t, 0x80, 0)
}

// wantOut runs to an OUT.
func (g *guest) wantOut(t testing.TB, port uint16, al byte) {
	t.Helper()
	g.wantExit(t, ExitIO)
	if e := g.cpu.IO(); !e.Write || e.Port != port || e.Data[0] != al {
		t.Fatalf("exit %+v, want OUT %#x with %#x", e, port, al)
	}
}

func signal(t testing.TB, fd int) {
	t.Helper()
	_, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	must(t, err)
}

func TestIRQFD(t *testing.T) {
	g := newGuest(t, open(t), true, nil)
	picGuest(t, g)
	fd := eventFD(t)
	must(t, g.AssignIRQFD(fd, 3))
	for range 3 {
		signal(t, fd)
		g.wantOut(t, 0x81, picMasterBase+3)
	}
	must(t, g.DeassignIRQFD(fd, 3))
	signal(t, fd)                  // must not arrive,
	must(t, g.SetIRQLine(4, true)) // but this does
	g.wantOut(t, 0x81, picMasterBase+4)
	must(t, g.SetIRQLine(4, false))
}

func TestGSIRouting(t *testing.T) {
	g := newGuest(t, open(t), true, nil)
	picGuest(t, g)
	enableLAPIC(t, g)
	must(t, g.SetGSIRouting([]GSIRoute{
		{GSI: 5, Chip: ChipPICMaster, Pin: 6},
		{GSI: 30, MSI: &MSI{Address: 0xfee00000, Data: picMasterBase + 7}},
	}))
	must(t, g.SetIRQLine(5, true))
	g.wantOut(t, 0x81, picMasterBase+6)
	must(t, g.SetIRQLine(5, false))

	fd := eventFD(t)
	must(t, g.AssignIRQFD(fd, 30))
	signal(t, fd)
	g.wantOut(t, 0x81, picMasterBase+7)
}

func TestSignalMSI(t *testing.T) {
	g := newGuest(t, open(t), true, nil)
	picGuest(t, g)
	m := MSI{Address: 0xfee00000, Data: picMasterBase + 2}
	if delivered, err := g.SignalMSI(m); err != nil || delivered {
		t.Errorf("local APIC off: delivered %v, %v", delivered, err)
	}
	enableLAPIC(t, g)
	if delivered, err := g.SignalMSI(m); err != nil || !delivered {
		t.Errorf("local APIC on: delivered %v, %v", delivered, err)
	}
	g.wantOut(t, 0x81, picMasterBase+2)
}

// enableLAPIC sets the APIC software enable bit of the spurious vector register.
func enableLAPIC(t testing.TB, g *guest) {
	t.Helper()
	l, err := get[LAPICState](g.cpu, getLAPIC)
	must(t, err)
	binary.LittleEndian.PutUint32(l.Regs[0xf0:], 0x1ff)
	must(t, call(g.cpu, setLAPIC, l))
}

func TestIOEventFD(t *testing.T) {
	g := newGuest(t, open(t), false, nil)
	code := []byte{
		0xb8, 0x07, 0x00, 0x00, 0x00, // mov eax, 7
		0x66, 0xe7, 0x90, // out 0x90, ax
		0xb8, 0x08, 0x00, 0x00, 0x00, // mov eax, 8
		0x66, 0xe7, 0x90, // out 0x90, ax
		0x89, 0x04, 0x25, 0x00, 0x00, 0x10, 0x00, // mov [0x100000], eax
		0xe6, 0x80, // out 0x80, al
	}
	port, mmio := eventFD(t), eventFD(t)
	eight := uint64(8)
	events := []IOEventFD{
		{Addr: 0x90, Size: 2, FD: port, PIO: true, Match: &eight},
		{Addr: 0x100000, Size: 4, FD: mmio},
	}
	for _, e := range events {
		must(t, g.AssignIOEventFD(e))
	}

	g.longMode(t, code...)
	g.wantOut(t, 0x90, 7) // does not match
	g.wantOut(t, 0x80, 8)
	for _, fd := range []int{port, mmio} {
		b := make([]byte, 8)
		if _, err := unix.Read(fd, b); err != nil || b[0] != 1 {
			t.Errorf("eventfd: %v, %v; want 1 event", b, err)
		}
	}

	for _, e := range events {
		must(t, g.DeassignIOEventFD(e))
	}
	complete(t, g)
	g.longMode(t, code...)
	g.wantOut(t, 0x90, 7)
	g.wantOut(t, 0x90, 8)
	g.wantExit(t, ExitMMIO)
}
