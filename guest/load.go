package guest

import (
	"bytes"
	"errors"
	"fmt"
)

// Config is what a guest is started with.
type Config struct {
	Kernel     Image
	Initrd     Image // a zero Image is none
	Cmdline    string
	CPUs       int    // 1 to MaxCPUs
	RAM        uint64 // bytes, see RAMRegions
	VirtioMMIO []MMIODevice
	Generation GenerationID
}

// MMIODevice is one virtio-mmio register window, announced by ACPI.
type MMIODevice struct {
	Addr, Size uint64
	GSI        uint32 // edge-triggered, its own
}

// kernel is what the format parsers find out about a kernel file.
type kernel struct {
	format   string // for messages
	segments []segment
	entry    uint64
	pvh      bool   // enter by PVH, otherwise by the 64-bit Linux boot protocol
	setup    []byte // Linux setup header, from offset 0x1F1 on; not for PVH

	cmdlineMax    int    // bytes, without the final NUL
	initrdLimit   uint64 // the initramfs ends here at the latest
	initrdAbove4G bool   // or, if it does not fit there, anywhere
}

// segment is a piece of a kernel file and the RAM that it occupies.
type segment struct {
	gpa, memSize     uint64
	fileOff, fileLen uint64
}

func (s segment) span() span { return span{s.gpa, s.gpa + s.memSize} }

// Load writes kernel, initramfs, command line, boot parameters and ACPI tables
// into guest memory and returns how the boot CPU enters the kernel.
//
// Preconditions: mem is the RAM that RAMRegions(c.RAM) describes and is zero;
// what a kernel expects to be zero (its .bss) is not written.
//
// Errors name the file or the setting, what was found and what was needed.
// After an error guest memory may be partly written.
func Load(mem GuestMemory, c Config) (*Entry, error) {
	ram, err := RAMRegions(c.RAM)
	if err != nil {
		return nil, err
	}
	if c.CPUs < 1 || c.CPUs > MaxCPUs {
		return nil, fmt.Errorf("%d CPUs: must be from 1 to %d", c.CPUs, MaxCPUs)
	}
	free := newSpace(ram)
	k, err := parseKernel(c.Kernel, ram[0].Size, &free)
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", c.Kernel.Name, err)
	}
	initrd, err := placeInitrd(&free, k, c.Initrd)
	if err != nil {
		return nil, err
	}
	cmdline, err := cmdlineBytes(c.Cmdline, k)
	if err != nil {
		return nil, err
	}
	acpi, err := newACPI(c)
	if err != nil {
		return nil, err
	}

	for _, s := range k.segments {
		if err := c.Kernel.copyTo(mem, s.gpa, s.fileOff, s.fileLen); err != nil {
			return nil, fmt.Errorf("kernel %s: %w", c.Kernel.Name, err)
		}
	}
	if initrd.size() > 0 {
		if err := c.Initrd.copyTo(mem, initrd.start, 0, initrd.size()); err != nil {
			return nil, fmt.Errorf("initrd %s: %w", c.Initrd.Name, err)
		}
	}
	b := bootParams{ram: ram, initrd: initrd, cmdlineLen: len(cmdline) - 1, rsdp: acpi.rsdp}
	pieces := []piece{{"command line", cmdlineAddr, cmdline}, {"ACPI tables", acpiBase, acpi.blob}, {"VM generation ID", GenerationAddr, c.Generation[:]}, biosData()}
	if k.pvh {
		pieces = append(pieces, b.startInfo())
	} else {
		pieces = append(pieces, b.zeroPage(k.setup), bootPageTables(), bootGDT())
	}
	for _, p := range pieces {
		if err := mem.WriteAt(p.data, p.gpa); err != nil {
			return nil, fmt.Errorf("write %s to guest memory at %#x: %w", p.what, p.gpa, err)
		}
	}
	e := &Entry{Mode: Long64, IP: k.entry, Params: zeroPageAddr}
	if k.pvh {
		e.Mode, e.Params = PVH32, startInfo
	}
	return e, nil
}

// piece is data that this package made, and where in guest memory it goes.
type piece struct {
	what string
	gpa  uint64
	data []byte
}

// bootParams is what both boot protocols tell the kernel.
type bootParams struct {
	ram        []RAMRegion
	initrd     span // empty: none
	cmdlineLen int  // without the final NUL
	rsdp       uint64
}

// parseKernel recognises the file's format, checks the file, chooses where it
// goes and takes that from free. Kernels go into the lowRAM bytes from 0 on.
func parseKernel(img Image, lowRAM uint64, free *space) (*kernel, error) {
	if !img.present() {
		return nil, errors.New("none given")
	}
	head, err := img.bytes(0, uint64(min(max(img.Size, 4), setupMin)), "kernel header")
	if err != nil {
		return nil, err
	}
	var k *kernel
	switch {
	case bytes.HasPrefix(head, []byte(elfMagic)):
		k, err = parseELF(img)
	case isBzImage(head):
		k, err = parseBzImage(img, head)
	default:
		err = fmt.Errorf("not a kernel that can be booted (%s): need a Linux bzImage, an ELF64 vmlinux or an ELF file with a PVH note", describe(head))
	}
	if err != nil {
		return nil, err
	}
	for _, s := range k.segments {
		if sp := s.span(); sp.end > lowRAM {
			return nil, fmt.Errorf("%s does not fit: it needs %s at %#x, up to %#x, but guest RAM ends at %#x; give the guest more memory",
				k.format, bytesText(s.memSize), sp.start, sp.end, lowRAM)
		} else if !free.take(sp) {
			return nil, fmt.Errorf("%s: corrupt: segment %v overlaps another", k.format, sp)
		}
	}
	return k, nil
}

// describe says what a file that is no kernel looks like, for the usual
// mistakes.
func describe(head []byte) string {
	for _, m := range []struct{ magic, what string }{
		{"\x1f\x8b", "gzip data: unpack it first"},
		{"\xfd7zXZ", "xz data: unpack it first"},
		{"\x28\xb5\x2f\xfd", "zstd data: unpack it first"},
		{"BZh", "bzip2 data: unpack it first"},
		{"070701", "a cpio archive: is this the initrd?"},
		{"QFI\xfb", "a qcow2 disk image"},
		{"!<arch>", "a Debian package or ar archive"},
		{"MZ", "an EFI program without the Linux boot header"},
	} {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.what
		}
	}
	return fmt.Sprintf("it starts with % x", head[:min(len(head), 8)])
}
