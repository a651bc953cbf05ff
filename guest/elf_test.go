package guest

import (
	"bytes"
	"testing"
)

func TestPVHKernelIsEnteredWithItsStartInfo(t *testing.T) {
	spec := vmlinuxSpec()
	spec.pvh = 0x100_0100
	kernel, initrd := elfFileBytes(spec), pattern(12345, 4)
	c := baseConfig(file("vmlinux", kernel))
	c.RAM, c.Initrd = 4<<30, file("initrd", initrd)
	m := newRAM(t, c.RAM)
	e, err := Load(m, c)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Entry{PVH32, 0x100_0100, startInfo}); *e != want {
		t.Errorf("entry %+v, want %+v", *e, want)
	}
	for _, s := range spec.loads {
		if !bytes.Equal(m.read(s.paddr, s.filesz), kernel[s.off:s.off+s.filesz]) {
			t.Errorf("the segment at %#x is not the file's", s.paddr)
		}
	}
	if m.u32(startInfo) != 0x336EC578 || m.u32(startInfo+4) != 1 {
		t.Errorf("magic %#x, version %d", m.u32(startInfo), m.u32(startInfo+4))
	}
	if n := m.u32(startInfo + 12); n != 1 {
		t.Fatalf("%d modules", n)
	}
	mod := m.u64(startInfo + 16)
	at, size := m.u64(mod), m.u64(mod+8)
	if at != LowRAMEnd-4*pageSize || !bytes.Equal(m.read(at, size), initrd) {
		t.Errorf("module: %d bytes at %#x", size, at)
	}
	if got := m.read(m.u64(startInfo+24), 14); string(got) != "console=ttyS0\x00" {
		t.Errorf("command line %q", got)
	}
	if got := m.read(m.u64(startInfo+32), 8); string(got) != "RSD PTR " {
		t.Errorf("RSDP %q", got)
	}
	mm, n := m.u64(startInfo+40), m.u32(startInfo+48)
	last := mm + uint64(n-1)*memmapLen
	if n != 6 || m.u64(last) != HighRAMBase || m.u64(last+8) != 1<<30 || m.u32(last+16) != e820RAM {
		t.Errorf("memory map: %d entries, last %#x +%#x type %d", n, m.u64(last), m.u64(last+8), m.u32(last+16))
	}
}

func TestPVHWithoutInitrdHasNoModules(t *testing.T) {
	spec := vmlinuxSpec()
	spec.pvh = spec.entry
	c := baseConfig(file("vmlinux", elfFileBytes(spec)))
	m := newRAM(t, c.RAM)
	if _, err := Load(m, c); err != nil {
		t.Fatal(err)
	}
	if n, list := m.u32(startInfo+12), m.u64(startInfo+16); n != 0 || list != 0 {
		t.Errorf("%d modules, list at %#x", n, list)
	}
}

func TestPVHNoteOfA32BitFileIsFound(t *testing.T) {
	spec := vmlinuxSpec()
	spec.class, spec.machine, spec.pvh = elfClass32, elfMachine386, 0x100_0100
	c := baseConfig(file("kernel", elfFileBytes(spec)))
	e, err := Load(newRAM(t, c.RAM), c)
	if err != nil {
		t.Fatal(err)
	}
	if e.Mode != PVH32 || e.IP != 0x100_0100 {
		t.Errorf("entry %+v", *e)
	}
}

func TestVmlinuxWithoutPVHGetsAZeroPage(t *testing.T) {
	c := baseConfig(file("vmlinux", elfFileBytes(vmlinuxSpec())))
	c.Initrd = file("initrd", pattern(5000, 3))
	m := newRAM(t, c.RAM)
	e, err := Load(m, c)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Entry{Long64, 0x100_0040, zeroPageAddr}); *e != want {
		t.Errorf("entry %+v, want %+v", *e, want)
	}
	if got := m.read(zeroPageAddr+hdrMagic, 4); string(got) != "HdrS" {
		t.Errorf("magic %q: Linux would take the zero page for that of an ancient loader", got)
	}
	if n := m.u32(zeroPageAddr + hdrRamdiskSize); n != 5000 {
		t.Errorf("initramfs of %d bytes", n)
	}
}

func TestFindNote(t *testing.T) {
	note := func(nameLen, descLen, typ uint32, rest string) string {
		b := make([]byte, 12)
		b[0], b[4], b[8] = byte(nameLen), byte(descLen), byte(typ)
		return string(b) + rest
	}
	pvh := note(4, 4, pvhNoteType, "Xen\x00\x01\x02\x03\x04")
	tests := []struct {
		name, notes, want string
		ok                bool
	}{
		{"empty", "", "", false},
		{"alone", pvh, "\x01\x02\x03\x04", true},
		{"after one with padding", note(3, 2, pvhNoteType, "GN\x00\x00ab\x00\x00") + pvh, "\x01\x02\x03\x04", true},
		{"other type", note(4, 4, 17, "Xen\x00abcd"), "", false},
		{"other name", note(4, 4, pvhNoteType, "GNU\x00abcd"), "", false},
		{"cut in the name", pvh[:13], "", false},
		{"cut in the descriptor", pvh[:18], "", false},
		{"cut in the padding", note(4, 2, 1, "Xen\x00ab"), "", false},
		{"name length wraps", "\xfd\xff\xff\xff" + pvh[4:], "", false},
		{"descriptor length wraps", pvh[:4] + "\xff\xff\xff\xff" + pvh[8:], "", false},
	}
	for _, tt := range tests {
		got, ok := findNote([]byte(tt.notes), pvhNoteName, pvhNoteType)
		if ok != tt.ok || string(got) != tt.want {
			t.Errorf("%s: %q, %v", tt.name, got, ok)
		}
	}
}
