package guest

import (
	"encoding/binary"
	"strings"
	"testing"
)

// fuzzLoad loads data as a kernel. What it writes goes to guest memory that
// refuses what is not RAM, and counts: a file can't make more be written than
// it holds, apart from this package's own tables.
func fuzzLoad(t *testing.T, data []byte) {
	m := newRAM(t, MinRAM)
	c := Config{Kernel: file("fuzz", data), Initrd: zeroFile("initrd", 4096), Cmdline: "x", CPUs: 1, RAM: MinRAM}
	e, err := Load(m, c)
	const own = 64 // pages
	// A segment can begin and end within a page.
	if limit := len(data)/pageSize + 2*elfMaxPhdrs + own; len(m.pages) > limit {
		t.Errorf("%d pages written for a file of %d bytes", len(m.pages), len(data))
	}
	if err != nil {
		if !strings.Contains(err.Error(), "fuzz") && !strings.Contains(err.Error(), "initrd") && !strings.Contains(err.Error(), "command line") {
			t.Errorf("error names no file and no setting: %v", err)
		}
		return
	}
	if e.IP < kernelMin || e.IP >= MinRAM {
		t.Errorf("entry at %#x", e.IP)
	}
	for gpa := range m.pages {
		if gpa*pageSize >= baseMemEnd && gpa*pageSize < acpiBase {
			t.Errorf("page %#x written", gpa*pageSize)
		}
	}
}

func FuzzBzImage(f *testing.F) {
	small := func(edit func(b []byte)) []byte {
		b := bzImageFile(func(b []byte) {
			b[hdrSetupSects] = 1
			binary.LittleEndian.PutUint32(b[hdrSyssize:], 64)
		})[:1024+64*16]
		if edit != nil {
			edit(b)
		}
		return b
	}
	f.Add(small(nil))
	f.Add(small(func(b []byte) { b[hdrSetupSects] = 0 }))
	f.Add(small(func(b []byte) { b[hdrJump+1] = 0xFF }))
	f.Add(small(func(b []byte) { binary.LittleEndian.PutUint64(b[hdrPrefAddress:], ^uint64(0)) }))
	f.Add(small(func(b []byte) { binary.LittleEndian.PutUint32(b[hdrSyssize:], ^uint32(0)) }))
	f.Add(small(nil)[:0x208])
	f.Fuzz(func(t *testing.T, data []byte) { fuzzLoad(t, data) })
}

func FuzzELF(f *testing.F) {
	small := func(edit func(s *elfSpec)) []byte {
		s := elfSpec{entry: 0x20_0000, loads: []elfProgram{{typ: elfLoad, off: 0x900, paddr: 0x20_0000, filesz: 0x100, memsz: 0x1000}}}
		edit(&s)
		return elfFileBytes(s)
	}
	f.Add(small(func(s *elfSpec) {}))
	f.Add(small(func(s *elfSpec) { s.pvh = s.entry }))
	f.Add(small(func(s *elfSpec) { s.pvh, s.class, s.machine = s.entry, elfClass32, elfMachine386 }))
	f.Add(small(func(s *elfSpec) { s.loads[0].memsz = ^uint64(0) }))
	f.Add(small(func(s *elfSpec) { s.loads[0].off = ^uint64(0) }))
	f.Add(small(func(s *elfSpec) {})[:70])
	f.Fuzz(func(t *testing.T, data []byte) { fuzzLoad(t, data) })
}

func FuzzCmdline(f *testing.F) {
	f.Add("console=ttyS0", uint32(2047))
	f.Add("", uint32(0))
	f.Add("a\x00b", uint32(255))
	f.Add(strings.Repeat("x", 3000), uint32(2047))
	f.Add(strings.Repeat("x", cmdlineArea), ^uint32(0))
	f.Fuzz(func(t *testing.T, s string, limit uint32) {
		b, err := cmdlineBytes(s, &kernel{format: "kernel", cmdlineMax: int(min(limit, cmdlineArea-1))})
		fits := len(s) <= int(limit) && len(s) < cmdlineArea && !strings.Contains(s, "\x00")
		if (err == nil) != fits {
			t.Fatalf("%d bytes of at most %d: %v", len(s), limit, err)
		}
		if err == nil && (len(b) > cmdlineArea || string(b) != s+"\x00") {
			t.Errorf("%q became %q", s, b)
		}
	})
}
