package guest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
)

// ram is sparse guest memory of the given layout that keeps pages written.
type ram struct {
	regions []RAMRegion
	pages   map[uint64]*[pageSize]byte
}

func newRAM(t testing.TB, size uint64) *ram {
	t.Helper()
	r, err := RAMRegions(size)
	if err != nil {
		t.Fatal(err)
	}
	return &ram{r, map[uint64]*[pageSize]byte{}}
}

func (m *ram) WriteAt(p []byte, gpa uint64) error {
	for _, r := range m.regions {
		if gpa < r.GPA || gpa-r.GPA > r.Size || uint64(len(p)) > r.Size-(gpa-r.GPA) {
			continue
		}
		for len(p) > 0 {
			pg := m.pages[gpa/pageSize]
			if pg == nil {
				pg = new([pageSize]byte)
				m.pages[gpa/pageSize] = pg
			}
			n := copy(pg[gpa%pageSize:], p)
			p, gpa = p[n:], gpa+uint64(n)
		}
		return nil
	}
	return fmt.Errorf("no RAM at [%#x, +%d)", gpa, len(p))
}

func (m *ram) read(gpa, n uint64) []byte {
	p := make([]byte, 0, n)
	for n > 0 {
		pg := m.pages[gpa/pageSize]
		if pg == nil {
			pg = new([pageSize]byte)
		}
		c := pg[gpa%pageSize:]
		c = c[:min(n, uint64(len(c)))]
		p, gpa, n = append(p, c...), gpa+uint64(len(c)), n-uint64(len(c))
	}
	return p
}

func (m *ram) u32(gpa uint64) uint32 { return binary.LittleEndian.Uint32(m.read(gpa, 4)) }
func (m *ram) u64(gpa uint64) uint64 { return binary.LittleEndian.Uint64(m.read(gpa, 8)) }

// file is an image that holds b.
func file(name string, b []byte) Image {
	return Image{ReaderAt: bytes.NewReader(b), Size: int64(len(b)), Name: name}
}

// zeros is an image of n bytes that costs nothing.
type zeros int64

func (z zeros) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	return len(p), nil
}

func zeroFile(name string, n int64) Image { return Image{ReaderAt: zeros(n), Size: n, Name: name} }

// pattern fills n bytes that differ from page to page.
func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i) ^ byte(i>>8)*3 ^ byte(i>>16)*7 ^ seed
	}
	return p
}

// bzImageFile makes a bzImage with the header of a distribution's kernel: 40
// sectors of setup, 2 MiB of kernel, wanting 16 MiB of RAM at 16 MiB. edit
// changes it before it is used.
func bzImageFile(edit func(b []byte)) []byte {
	const sects, payload = 39, 2 << 20
	le := binary.LittleEndian
	b := append(make([]byte, (sects+1)*sectorSize), pattern(payload, 1)...)
	b[hdrSetupSects] = sects
	le.PutUint32(b[hdrSyssize:], payload/16)
	le.PutUint16(b[hdrBootFlag:], bootFlag)
	b[hdrJump], b[hdrJump+1] = 0xEB, 0x6A // header ends at 0x26C
	copy(b[hdrMagic:], headerMagic)
	le.PutUint16(b[hdrVersion:], 0x20F)
	b[hdrLoadflags] = loadedHigh | keepSegments
	le.PutUint32(b[hdrInitrdAddrMax:], 0x7FFF_FFFF)
	le.PutUint32(b[hdrKernelAlign:], 2<<20)
	b[hdrRelocatable] = 1
	le.PutUint16(b[hdrXloadflags:], xlfKernel64|xlfAbove4G)
	le.PutUint32(b[hdrCmdlineSize:], 2047)
	le.PutUint64(b[hdrPrefAddress:], 16<<20)
	le.PutUint32(b[hdrInitSize:], 16<<20)
	if edit != nil {
		edit(b)
	}
	return b
}

// elfSpec is an ELF file to be made.
type elfSpec struct {
	class   byte // default elfClass64
	machine uint16
	typ     uint16
	entry   uint64
	pvh     uint64 // 0: no note
	loads   []elfProgram
}

// elfFileBytes makes the file: header, program headers, note, then a pattern
// up to the end of the last segment.
func elfFileBytes(s elfSpec) []byte {
	le := binary.LittleEndian
	var notes []byte
	if s.pvh != 0 {
		// An unrelated note first, as in a Linux kernel.
		notes = join([]byte{4, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0}, []byte("Xen\x00"), make([]byte, 8))
		notes = join(notes, []byte{4, 0, 0, 0, 8, 0, 0, 0, pvhNoteType, 0, 0, 0}, []byte("Xen\x00"), u64s(s.pvh))
		if s.class == elfClass32 {
			notes = join([]byte{4, 0, 0, 0, 4, 0, 0, 0, pvhNoteType, 0, 0, 0}, []byte("Xen\x00"), le.AppendUint32(nil, uint32(s.pvh)))
		}
	}
	const notesAt = 0x800
	phdrs := s.loads
	if notes != nil {
		phdrs = append([]elfProgram{{typ: elfNote, off: notesAt, filesz: uint64(len(notes)), memsz: uint64(len(notes))}}, phdrs...)
	}
	b := make([]byte, elfHeaderLen)
	copy(b, elfMagic)
	b[4], b[5], b[6] = elfClass64, elfLSB, 1
	le.PutUint16(b[16:], elfExec)
	le.PutUint16(b[18:], elfMachineX64)
	if s.machine != 0 {
		le.PutUint16(b[18:], s.machine)
	}
	if s.typ != 0 {
		le.PutUint16(b[16:], s.typ)
	}
	end := uint64(notesAt + len(notes))
	if s.class == elfClass32 {
		b[4] = elfClass32
		le.PutUint32(b[24:], uint32(s.entry))
		le.PutUint32(b[28:], elfHeaderLen)
		le.PutUint16(b[42:], 32)
		le.PutUint16(b[44:], uint16(len(phdrs)))
		for _, p := range phdrs {
			for _, v := range []uint64{uint64(p.typ), p.off, 0, p.paddr, p.filesz, p.memsz, 0, 0} {
				b = le.AppendUint32(b, uint32(v))
			}
			end = max(end, p.off+p.filesz)
		}
	} else {
		le.PutUint64(b[24:], s.entry)
		le.PutUint64(b[32:], elfHeaderLen)
		le.PutUint16(b[54:], 56)
		le.PutUint16(b[56:], uint16(len(phdrs)))
		for _, p := range phdrs {
			b = append(b, u64s(uint64(p.typ), p.off, 0, p.paddr, p.filesz, p.memsz, 0)...)
			end = max(end, p.off+p.filesz)
		}
	}
	out := pattern(int(end), 2)
	clear(out[:notesAt])
	copy(out, b)
	copy(out[notesAt:], notes)
	return out
}

// vmlinuxSpec is an ELF64 kernel with two segments, the second with a .bss.
func vmlinuxSpec() elfSpec {
	return elfSpec{
		entry: 0x100_0040,
		loads: []elfProgram{
			{typ: elfLoad, off: 0x1000, paddr: 0x100_0000, filesz: 0x3_0000, memsz: 0x3_0000},
			{typ: elfLoad, off: 0x3_1000, paddr: 0x120_0000, filesz: 0x1234, memsz: 0x20_0000},
		},
	}
}

func baseConfig(k Image) Config {
	return Config{Kernel: k, CPUs: 2, RAM: 256 << 20, Cmdline: "console=ttyS0"}
}
