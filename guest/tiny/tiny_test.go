package tiny_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"microvm/guest/tiny"
)

const (
	notePhys32Entry = 18       // XEN_ELFNOTE_PHYS32_ENTRY
	loadAddress     = 1 << 20  // what the linker script says
	memoryEnd       = 2 << 20  // the kernel without its count table ends below
	maxSize         = 16 << 10 // "a few KiB"
)

func TestKernelIsALoadablePVHELF(t *testing.T) {
	kernel := tiny.Kernel()
	if len(kernel) > maxSize {
		t.Errorf("kernel of %d bytes, want at most %d", len(kernel), maxSize)
	}
	f, err := elf.NewFile(bytes.NewReader(kernel))
	if err != nil {
		t.Fatal(err)
	}
	if f.Class != elf.ELFCLASS64 || f.Machine != elf.EM_X86_64 || f.Type != elf.ET_EXEC {
		t.Errorf("ELF is %v %v %v, want a 64-bit x86-64 executable", f.Class, f.Machine, f.Type)
	}

	entry := pvhEntry(t, f)
	if f.Entry != entry {
		t.Errorf("ELF entry %#x, PVH entry %#x: want the same", f.Entry, entry)
	}
	entryIsCode := false
	end := uint64(loadAddress)
	for _, p := range f.Progs {
		if p.Off+p.Filesz > uint64(len(kernel)) {
			t.Errorf("%v segment at file offset %#x+%#x is past the end of the file", p.Type, p.Off, p.Filesz)
		}
		if p.Type != elf.PT_LOAD {
			continue
		}
		if p.Paddr != p.Vaddr || p.Filesz > p.Memsz || p.Paddr < end || p.Paddr+p.Memsz > memoryEnd {
			t.Errorf("segment %+v: want it 1:1, above the one before and below %#x", p.ProgHeader, memoryEnd)
		}
		if p.Flags&elf.PF_X != 0 && entry >= p.Paddr && entry < p.Paddr+p.Filesz {
			entryIsCode = true
		}
		end = p.Paddr + p.Memsz
	}
	if !entryIsCode {
		t.Errorf("PVH entry %#x is in no executable segment", entry)
	}
}

// pvhEntry returns the address in the PVH note of f, which must have exactly one note.
func pvhEntry(t *testing.T, f *elf.File) uint64 {
	t.Helper()
	var note []byte
	for _, p := range f.Progs {
		if p.Type == elf.PT_NOTE {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err != nil {
				t.Fatal(err)
			}
			note = append(note, b...)
		}
	}
	want := binary.LittleEndian.AppendUint32(nil, 4) // name size, descriptor size, type
	want = binary.LittleEndian.AppendUint32(want, 8)
	want = binary.LittleEndian.AppendUint32(want, notePhys32Entry)
	want = append(want, "Xen\x00"...)
	if len(note) != len(want)+8 || !bytes.HasPrefix(note, want) {
		t.Fatalf("note % x, want % x and 8 bytes of address", note, want)
	}
	return binary.LittleEndian.Uint64(note[len(want):])
}

func TestCommittedKernelIsWhatItsSourceBuilds(t *testing.T) {
	for _, tool := range []string{"sh", "as", "ld"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is missing: install binutils (apt-get install binutils)", tool)
		}
	}
	built := filepath.Join(t.TempDir(), "tiny.elf")
	if out, err := exec.Command("../../hack/tiny/build.sh", built).CombinedOutput(); err != nil {
		t.Fatalf("hack/tiny/build.sh: %v\n%s", err, out)
	}
	got, err := os.ReadFile(built)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, tiny.Kernel()) {
		t.Errorf("guest/tiny/tiny.elf is not what guest/tiny/*.S builds: run hack/tiny/build.sh and commit the result")
	}
}
