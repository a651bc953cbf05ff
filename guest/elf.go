package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	elfMagic      = "\x7fELF"
	elfHeaderLen  = 64 // of the longer, 64-bit header
	elfClass32    = 1
	elfClass64    = 2
	elfLSB        = 1
	elfExec       = 2
	elfDyn        = 3
	elfMachine386 = 3
	elfMachineX64 = 62
	elfLoad       = 1
	elfNote       = 4

	// Bounds on what is read before anything is known about the file. A Linux
	// vmlinux has 5 program headers and a few hundred bytes of notes.
	elfMaxPhdrs = 64
	elfMaxNotes = 64 << 10

	// XEN_ELFNOTE_PHYS32_ENTRY: the 32-bit entry point of the PVH ABI.
	pvhNoteType = 18
	pvhNoteName = "Xen\x00"

	// A vmlinux says nothing about the longest command line it takes; every
	// x86 Linux has COMMAND_LINE_SIZE 2048.
	cmdlineMaxELF = 2047
)

// elfProgram is a program header of either class.
type elfProgram struct {
	typ                       uint32
	off, paddr, filesz, memsz uint64
}

// elfFile is the ELF header of either class.
type elfFile struct {
	img     Image
	is64    bool
	machine uint16
	entry   uint64
	phdrs   []elfProgram
}

// parseELF checks an ELF kernel: by PVH if it has the note, otherwise a 64-bit
// vmlinux.
func parseELF(img Image) (*kernel, error) {
	f, err := readELF(img)
	if err != nil {
		return nil, fmt.Errorf("ELF: %w", err)
	}
	pvhEntry, pvh, err := f.pvhEntry()
	if err != nil {
		return nil, fmt.Errorf("ELF: %w", err)
	}
	if !pvh && !f.is64 {
		return nil, errors.New("ELF: a 32-bit kernel without a PVH note: need an x86-64 kernel")
	}
	k := &kernel{format: "ELF kernel", entry: f.entry, pvh: pvh, cmdlineMax: cmdlineMaxELF, initrdLimit: LowRAMEnd}
	if pvh {
		k.format, k.entry, k.cmdlineMax = "PVH kernel", pvhEntry, cmdlineMaxPVH
	} else {
		k.setup = elfSetupHeader()
	}
	if k.segments, err = f.segments(); err != nil {
		return nil, fmt.Errorf("%s: %w", k.format, err)
	}
	for _, s := range k.segments {
		if sp := s.span(); sp.start <= k.entry && k.entry < sp.end {
			return k, nil
		}
	}
	return nil, fmt.Errorf("%s: corrupt: the entry point %#x is in no loaded segment", k.format, k.entry)
}

// readELF reads the header and the program headers.
func readELF(img Image) (*elfFile, error) {
	h, err := img.bytes(0, elfHeaderLen, "the header")
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if h[5] != elfLSB || (h[4] != elfClass32 && h[4] != elfClass64) {
		return nil, fmt.Errorf("not an x86 kernel (class %d, data encoding %d)", h[4], h[5])
	}
	f := &elfFile{img: img, is64: h[4] == elfClass64, machine: le.Uint16(h[18:])}
	if f.machine != elfMachineX64 && f.machine != elfMachine386 {
		return nil, fmt.Errorf("not an x86 kernel (machine %d)", f.machine)
	}
	if t := le.Uint16(h[16:]); t != elfExec && t != elfDyn {
		return nil, fmt.Errorf("not an executable (type %d): an object file or a core dump cannot be booted", t)
	}
	var phoff uint64
	var phentsize, phnum, want uint16
	if f.is64 {
		f.entry, phoff, phentsize, phnum, want = le.Uint64(h[24:]), le.Uint64(h[32:]), le.Uint16(h[54:]), le.Uint16(h[56:]), 56
	} else {
		f.entry, phoff, phentsize, phnum, want = uint64(le.Uint32(h[24:])), uint64(le.Uint32(h[28:])), le.Uint16(h[42:]), le.Uint16(h[44:]), 32
	}
	if phnum == 0 || phnum > elfMaxPhdrs || phentsize != want {
		return nil, fmt.Errorf("corrupt: %d program headers of %d bytes: need 1 to %d of %d", phnum, phentsize, elfMaxPhdrs, want)
	}
	table, err := img.bytes(phoff, uint64(phnum)*uint64(phentsize), "the program header table")
	if err != nil {
		return nil, err
	}
	for ; len(table) > 0; table = table[want:] {
		p := elfProgram{typ: le.Uint32(table)}
		if f.is64 {
			p.off, p.paddr, p.filesz, p.memsz = le.Uint64(table[8:]), le.Uint64(table[24:]), le.Uint64(table[32:]), le.Uint64(table[40:])
		} else {
			p.off, p.paddr, p.filesz, p.memsz = uint64(le.Uint32(table[4:])), uint64(le.Uint32(table[12:])), uint64(le.Uint32(table[16:])), uint64(le.Uint32(table[20:]))
		}
		f.phdrs = append(f.phdrs, p)
	}
	return f, nil
}

// segments are the PT_LOAD segments, checked against the file and against
// the addresses below LowRAMEnd.
func (f *elfFile) segments() ([]segment, error) {
	var segs []segment
	for i, p := range f.phdrs {
		if p.typ != elfLoad || p.memsz == 0 {
			continue
		}
		if p.filesz > p.memsz {
			return nil, fmt.Errorf("corrupt: segment %d has %d bytes in the file, %d in memory", i, p.filesz, p.memsz)
		}
		if size := uint64(f.img.Size); p.off > size || p.filesz > size-p.off {
			return nil, fmt.Errorf("truncated: segment %d needs %d bytes at %d, the file has %d", i, p.filesz, p.off, size)
		}
		if p.paddr < kernelMin || p.paddr > LowRAMEnd || p.memsz > LowRAMEnd-p.paddr {
			return nil, fmt.Errorf("does not fit: segment %d wants %s at %#x, outside [%#x, %#x)", i, bytesText(p.memsz), p.paddr, kernelMin, LowRAMEnd)
		}
		segs = append(segs, segment{gpa: p.paddr, memSize: p.memsz, fileOff: p.off, fileLen: p.filesz})
	}
	if len(segs) == 0 {
		return nil, errors.New("corrupt: no segment to load")
	}
	return segs, nil
}

// pvhEntry finds the PVH entry point in the file's notes.
func (f *elfFile) pvhEntry() (uint64, bool, error) {
	for i, p := range f.phdrs {
		if p.typ != elfNote {
			continue
		}
		if p.filesz > elfMaxNotes {
			return 0, false, fmt.Errorf("note segment %d has %d bytes: at most %d are read", i, p.filesz, elfMaxNotes)
		}
		notes, err := f.img.bytes(p.off, p.filesz, "a note segment")
		if err != nil {
			return 0, false, err
		}
		if desc, ok := findNote(notes, pvhNoteName, pvhNoteType); ok {
			switch len(desc) {
			case 4:
				return uint64(binary.LittleEndian.Uint32(desc)), true, nil
			case 8:
				return binary.LittleEndian.Uint64(desc), true, nil
			}
			return 0, false, fmt.Errorf("corrupt: the PVH note has %d bytes, not 4 or 8", len(desc))
		}
	}
	return 0, false, nil
}

// findNote returns the descriptor of the first note with that name and type:
// name size, descriptor size and type of 4 bytes each, then name and
// descriptor, each padded to 4 bytes.
func findNote(b []byte, name string, typ uint32) ([]byte, bool) {
	le := binary.LittleEndian
	for len(b) >= 12 {
		nameLen, descLen, t := uint64(le.Uint32(b)), uint64(le.Uint32(b[4:])), le.Uint32(b[8:])
		descAt := 12 + (nameLen+3)&^3
		end := descAt + descLen
		if end > uint64(len(b)) {
			return nil, false
		}
		if t == typ && string(b[12:12+nameLen]) == name {
			return b[descAt:end], true
		}
		b = b[min((end+3)&^3, uint64(len(b))):]
	}
	return nil, false
}
