package guest

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

func TestBzImageIsLoadedByThe64BitBootProtocol(t *testing.T) {
	kernel, initrd := bzImageFile(nil), pattern(300_001, 9)
	c := baseConfig(file("vmlinuz", kernel))
	c.Generation = GenerationID([]byte("one generation's"))
	c.Initrd = file("initrd.gz", initrd)
	m := newRAM(t, c.RAM)
	e, err := Load(m, c)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Entry{Long64, 16<<20 + 0x200, zeroPageAddr}); *e != want {
		t.Errorf("entry %+v, want %+v", *e, want)
	}
	setup := 40 * sectorSize
	if !bytes.Equal(m.read(16<<20, 2<<20), kernel[setup:]) {
		t.Error("the kernel in memory is not the file's")
	}
	zp := m.read(zeroPageAddr, pageSize)
	le := binary.LittleEndian
	// The kernel's header is copied, but for what the loader fills in.
	if !bytes.Equal(zp[0x22C:0x26C], kernel[0x22C:0x26C]) || le.Uint16(zp[hdrVersion:]) != 0x20F {
		t.Error("the setup header was not copied")
	}
	if zp[0x1EF] != 0 || !bytes.Equal(zp[0x26C:0x290], make([]byte, 0x24)) {
		t.Error("bytes outside the setup header were copied")
	}
	if zp[hdrTypeOfLoader] != 0xFF || zp[hdrLoadflags] != loadedHigh {
		t.Errorf("type_of_loader %#x, loadflags %#x", zp[hdrTypeOfLoader], zp[hdrLoadflags])
	}
	at, n := uint64(le.Uint32(zp[hdrRamdiskImage:])), le.Uint32(zp[hdrRamdiskSize:])
	if n != uint32(len(initrd)) || at%pageSize != 0 || at+uint64(n) > c.RAM || at < c.RAM-uint64(n)-pageSize {
		t.Errorf("initramfs: %d bytes at %#x", n, at)
	}
	if !bytes.Equal(m.read(at, uint64(n)), initrd) {
		t.Error("the initramfs in memory is not the file's")
	}
	if p := le.Uint32(zp[hdrCmdLinePtr:]); string(m.read(uint64(p), 14)) != "console=ttyS0\x00" {
		t.Errorf("command line at %#x: %q", p, m.read(uint64(p), 14))
	}
	if le.Uint64(zp[zpACPIRSDP:]) != acpiBase {
		t.Errorf("acpi_rsdp_addr %#x", le.Uint64(zp[zpACPIRSDP:]))
	}
	if got := m.read(GenerationAddr, 16); string(got) != "one generation's" {
		t.Errorf("VM generation ID %q", got)
	}
	if zp[zpE820Count] != 5 || le.Uint64(zp[zpE820Table+8:]) != ebdaBase {
		t.Errorf("E820: %d entries, first of %#x bytes", zp[zpE820Count], le.Uint64(zp[zpE820Table+8:]))
	}
}

func TestInitrdGoesWhereTheKernelCanReachIt(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	tests := []struct {
		name    string
		ram     uint64
		initrd  int64
		addrMax uint32
		above4G bool
		want    uint64
		err     string
	}{
		{"top of a small guest", 256 * mib, 10 * mib, 0x7FFF_FFFF, false, 246 * mib, ""},
		{"page-aligned", 256 * mib, 10*mib + 1, 0x7FFF_FFFF, false, 246*mib - pageSize, ""},
		{"below initrd_addr_max", 4 * gib, 10 * mib, 0x7FFF_FFFF, true, 2*gib - 10*mib, ""},
		{"low initrd_addr_max", 4 * gib, 10 * mib, 0x37FF_FFFF, true, 0x3800_0000 - 10*mib, ""},
		{"below the kernel if there is no other room", 128 * mib, 14 * mib, 31*mib - 1, false, 2 * mib, ""},
		{"above 4 GiB if the kernel can", 8 * gib, 2*gib + 100*mib, 0x7FFF_FFFF, true, 9*gib - 2*gib - 100*mib, ""},
		{"above initrd_addr_max but low if the kernel can", 3 * gib, 2*gib + 100*mib, 0x7FFF_FFFF, true, gib - 100*mib, ""},
		{"not above 4 GiB if it cannot", 8 * gib, 2*gib + 100*mib, 0x7FFF_FFFF, false, 0, "the largest room below 0x80000000 is 2016 MiB"},
		{"too big", 128 * mib, 97 * mib, 0x7FFF_FFFF, true, 0, "its 97 MiB do not fit: the largest room below 0x1100000000 is 96 MiB; give the guest more memory"},
		{"just fits", 128 * mib, 96 * mib, 0x7FFF_FFFF, true, 32 * mib, ""},
		{"empty", 128 * mib, 0, 0x7FFF_FFFF, true, 0, "initrd rd: the file is empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			free := newSpace(newRAM(t, tt.ram).regions)
			k, err := parseKernel(file("k", bzImageFile(func(b []byte) {
				binary.LittleEndian.PutUint32(b[hdrInitrdAddrMax:], tt.addrMax)
				if !tt.above4G {
					b[hdrXloadflags] &^= xlfAbove4G
				}
			})), min(tt.ram, LowRAMEnd), &free)
			if err != nil {
				t.Fatal(err)
			}
			sp, err := placeInitrd(&free, k, zeroFile("rd", tt.initrd))
			checkErr(t, err, tt.err)
			if err == nil && (sp.start != tt.want || sp.size() != uint64(tt.initrd)) {
				t.Errorf("placed at %v, want %#x", sp, tt.want)
			}
		})
	}
}

// checkErr holds err against the text it must contain; none if want is empty.
func checkErr(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("unexpected error: %v", err)
	case want != "" && err == nil:
		t.Errorf("no error, want %q", want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("error %q, want %q", err, want)
	}
}

func TestKernelsThatCannotBootAreRefusedWithTheReason(t *testing.T) {
	le := binary.LittleEndian
	bz := func(edit func(b []byte)) []byte { return bzImageFile(edit) }
	vmlinux := func(edit func(s *elfSpec)) []byte {
		s := vmlinuxSpec()
		edit(&s)
		return elfFileBytes(s)
	}
	tests := []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "truncated: kernel header needs bytes 0 to 4, the file has 0"},
		{"text", []byte("hello, this is no kernel"), "not a kernel that can be booted (it starts with 68 65 6c 6c 6f"},
		{"gzip", []byte("\x1f\x8b\x08\x00\x00"), "gzip data: unpack it first"},
		{"cpio", []byte("070701000002"), "is this the initrd?"},
		{"EFI program", append([]byte("MZ"), make([]byte, 2000)...), "an EFI program without the Linux boot header"},
		{"old protocol", bz(func(b []byte) { le.PutUint16(b[hdrVersion:], 0x20B) }), "too old: boot protocol 2.11, need 2.12 (Linux 3.8) or later"},
		{"ancient protocol", bz(func(b []byte) { le.PutUint16(b[hdrVersion:], 0x200) }), "boot protocol 2.00"},
		{"32-bit", bz(func(b []byte) { le.PutUint16(b[hdrXloadflags:], 0) }), "a 32-bit kernel"},
		{"zImage", bz(func(b []byte) { b[hdrLoadflags] = 0 }), "a zImage"},
		{"short header", bz(func(b []byte) { b[hdrJump+1] = 0x20 }), "corrupt: setup header ends at 0x222"},
		{"alignment", bz(func(b []byte) { le.PutUint32(b[hdrKernelAlign:], 3<<20) }), "no power of two"},
		{"no payload", bz(func(b []byte) { le.PutUint32(b[hdrSyssize:], 0) }), "corrupt: 0 bytes of kernel"},
		{"truncated setup", bz(nil)[:700], "truncated: the setup code needs at least 1024 bytes, the file has 700"},
		{"truncated kernel", bz(nil)[:1<<20], "truncated: the kernel needs 2117632 bytes, the file has 1048576"},
		{"needs more RAM", bz(func(b []byte) { le.PutUint32(b[hdrInitSize:], 241<<20) }), "does not fit: it needs 241 MiB at 0x1000000, up to 0x10100000, but guest RAM ends at 0x10000000"},
		{"too high", bz(func(b []byte) { le.PutUint64(b[hdrPrefAddress:], 1<<40) }), "does not fit: it wants 16 MiB at 0x10000000000"},
		{"wraps", bz(func(b []byte) { le.PutUint64(b[hdrPrefAddress:], ^uint64(0)) }), "does not fit"},
		{"too low", bz(func(b []byte) { b[hdrRelocatable] = 0; le.PutUint64(b[hdrPrefAddress:], 0x1000) }), "does not fit"},

		{"ELF cut in the header", vmlinux(func(s *elfSpec) {})[:40], "ELF: truncated: the header needs bytes 0 to 64, the file has 40"},
		{"ELF cut in the table", vmlinux(func(s *elfSpec) {})[:100], "truncated: the program header table"},
		{"ELF cut in a segment", vmlinux(func(s *elfSpec) {})[:0x2000], "truncated: segment 0 needs 196608 bytes at 4096, the file has 8192"},
		{"ELF for Arm", vmlinux(func(s *elfSpec) { s.machine = 183 }), "not an x86 kernel (machine 183)"},
		{"object file", vmlinux(func(s *elfSpec) { s.typ = 1 }), "not an executable (type 1)"},
		{"32-bit ELF", vmlinux(func(s *elfSpec) { s.class, s.machine = elfClass32, elfMachine386 }), "a 32-bit kernel without a PVH note"},
		{"no segments", vmlinux(func(s *elfSpec) { s.loads[0].typ, s.loads[1].typ = 7, 7 }), "no segment to load"},
		{"no program headers", vmlinux(func(s *elfSpec) { s.loads = nil }), "0 program headers"},
		{"entry outside", vmlinux(func(s *elfSpec) { s.entry = 0xFFFF_FFFF_8100_0000 }), "entry point 0xffffffff81000000 is in no loaded segment"},
		{"more file than memory", vmlinux(func(s *elfSpec) { s.loads[1].memsz = 0x1000 }), "corrupt: segment 1"},
		{"segment below 1 MiB", vmlinux(func(s *elfSpec) { s.loads[0].paddr = 0x8000 }), "does not fit: segment 0 wants 192 KiB at 0x8000"},
		{"segment that wraps", vmlinux(func(s *elfSpec) { s.loads[1].memsz = ^uint64(0) }), "does not fit: segment 1"},
		{"segment above RAM", vmlinux(func(s *elfSpec) { s.loads[1].paddr = 256 << 20 }), "give the guest more memory"},
		{"overlapping segments", vmlinux(func(s *elfSpec) { s.loads[1].paddr = 0x102_0000 }), "overlaps another"},
		{"PVH entry outside", vmlinux(func(s *elfSpec) { s.pvh = 0x10 }), "PVH kernel: corrupt: the entry point 0x10"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := baseConfig(file("the-file", tt.file))
			_, err := Load(newRAM(t, c.RAM), c)
			checkErr(t, err, tt.want)
			checkErr(t, err, "kernel the-file: ")
		})
	}
}

func TestMachinesThatCannotBeAreRefused(t *testing.T) {
	tests := []struct {
		name string
		edit func(c *Config)
		want string
	}{
		{"no CPUs", func(c *Config) { c.CPUs = 0 }, "0 CPUs: must be from 1 to 32"},
		{"too many CPUs", func(c *Config) { c.CPUs = 33 }, "33 CPUs"},
		{"no kernel", func(c *Config) { c.Kernel = Image{} }, "none given"},
		{"little memory", func(c *Config) { c.RAM = 127 << 20 }, "guest memory 127 MiB: must be from 128 MiB to 64 GiB"},
		{"command line", func(c *Config) { c.Cmdline = strings.Repeat("x", 2048) }, "2048 bytes, this bzImage takes at most 2047"},
		{"NUL", func(c *Config) { c.Cmdline = "a\x00b" }, "NUL byte at offset 1"},
		{"window below", func(c *Config) { c.VirtioMMIO = []MMIODevice{{0xC000_0000, 0x1000, 16}} }, "must be page-aligned and in"},
		{"window beyond", func(c *Config) { c.VirtioMMIO = []MMIODevice{{IOAPICBase - 0x1000, 0x2000, 16}} }, "must be page-aligned and in"},
		{"overlap", func(c *Config) {
			c.VirtioMMIO = []MMIODevice{{MMIOBase, 0x2000, 16}, {MMIOBase + 0x1000, 0x1000, 17}}
		}, "overlaps virtio-mmio device 0"},
		{"GSI", func(c *Config) { c.VirtioMMIO = []MMIODevice{{MMIOBase, 0x1000, 24}} }, "GSI 24: the last is 23"},
		{"GSI taken", func(c *Config) { c.VirtioMMIO = []MMIODevice{{MMIOBase, 0x1000, 4}} }, "GSI 4 belongs to COM1"},
		{"GSI shared", func(c *Config) {
			c.VirtioMMIO = []MMIODevice{{MMIOBase, 0x1000, 16}, {MMIOBase + 0x1000, 0x1000, 16}}
		}, "GSI 16 belongs to virtio-mmio device 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := baseConfig(file("k", bzImageFile(nil)))
			tt.edit(&c)
			_, err := Load(newRAM(t, 256<<20), c)
			checkErr(t, err, tt.want)
		})
	}
}
