package guest

import (
	"encoding/binary"
	"testing"
)

func testACPI(t testing.TB, cpus, devices int) (acpiTables, *ram) {
	t.Helper()
	c := baseConfig(Image{})
	c.CPUs = cpus
	for i := range uint32(devices) {
		c.VirtioMMIO = append(c.VirtioMMIO, MMIODevice{MMIOBase + uint64(i)*MMIOSize, MMIOSize, 23 - i})
	}
	a, err := newACPI(c)
	if err != nil {
		t.Fatal(err)
	}
	m := newRAM(t, c.RAM)
	if err := m.WriteAt(a.blob, acpiBase); err != nil {
		t.Fatal(err)
	}
	return a, m
}

// table reads the table at gpa and checks its header.
func (m *ram) table(t *testing.T, gpa uint64, signature string) []byte {
	t.Helper()
	b := m.read(gpa, uint64(m.u32(gpa+4)))
	if string(b[:4]) != signature || sum(b) != 0 {
		t.Fatalf("table at %#x: signature %q, want %q; sum %#x", gpa, b[:4], signature, sum(b))
	}
	return b
}

func sum(b []byte) (s byte) {
	for _, v := range b {
		s += v
	}
	return s
}

func TestACPITablesAreFoundFromTheRSDP(t *testing.T) {
	a, m := testACPI(t, 3, 2)
	le := binary.LittleEndian
	r := m.read(a.rsdp, 36)
	if string(r[:8]) != "RSD PTR " || r[15] != 2 || sum(r[:20]) != 0 || sum(r) != 0 {
		t.Errorf("RSDP % x", r)
	}
	if a.rsdp%16 != 0 || a.rsdp < 0xE0000 {
		t.Errorf("RSDP at %#x, where no scan looks", a.rsdp)
	}
	xsdt := m.table(t, le.Uint64(r[24:]), "XSDT")
	if len(xsdt) != 36+16 {
		t.Fatalf("XSDT of %d bytes", len(xsdt))
	}
	fadt := m.table(t, le.Uint64(xsdt[36:]), "FACP")
	m.table(t, uint64(le.Uint32(fadt[40:])), "DSDT")
	m.table(t, le.Uint64(fadt[140:]), "DSDT")
	facs := uint64(le.Uint32(fadt[36:]))
	if string(m.read(facs, 4)) != "FACS" || facs%64 != 0 || m.u32(facs+4) != 64 {
		t.Errorf("FACS at %#x", facs)
	}
	if le.Uint16(fadt[46:]) != 9 || le.Uint32(fadt[56:]) != 0x600 || le.Uint32(fadt[64:]) != 0x604 {
		t.Errorf("fixed hardware % x", fadt[46:80])
	}
	flags := le.Uint32(fadt[112:])
	if flags&(1<<20) != 0 || flags&(1<<10) == 0 || flags&(1<<4) != 0 {
		t.Errorf("flags %#x: want fixed hardware, a reset register and a fixed power button", flags)
	}

	madt := m.table(t, le.Uint64(xsdt[44:]), "APIC")
	var cpus []byte
	overrides := map[byte][6]byte{}
	for e := madt[44:]; len(e) > 0; e = e[e[1]:] {
		switch e[0] {
		case madtLAPIC:
			cpus = append(cpus, e[3])
		case madtIOAPIC:
			if e[2] != 3 || le.Uint32(e[4:]) != 0xFEC0_0000 {
				t.Errorf("IOAPIC % x", e[:12])
			}
		case madtOverride:
			overrides[e[3]] = [6]byte(e[4:10])
		}
	}
	if string(cpus) != "\x00\x01\x02" {
		t.Errorf("APIC ids % x", cpus)
	}
	if overrides[0] != [6]byte{2} || overrides[9] != [6]byte{9, 0, 0, 0, 0x0D} || len(overrides) != 2 {
		t.Errorf("interrupt source overrides % x", overrides)
	}
}
