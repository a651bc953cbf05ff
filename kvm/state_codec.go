package kvm

import (
	"encoding/binary"
	"fmt"
)

// The form of a saved state, all numbers little-endian:
//
//	magic   u32   which kind of state
//	version u32   of this kind
//	then sections, each once, in any order:
//	tag     u32
//	length  u32   of the payload in bytes
//	payload       a structure of asm/kvm.h, or an array of them
//
// A reader refuses a version that is not its own, a tag that it does not know,
// a section that is twice there or missing, and a length that is not right.

// VCPUStateVersion and VMStateVersion number the forms that are written here.
const (
	VCPUStateVersion uint32 = 1
	VMStateVersion   uint32 = 1
)

// headerSize is what stands before the sections, and before each payload.
const headerSize = 8

// form is one kind of saved state.
type form struct {
	name     string
	magic    uint32
	version  uint32
	sections []section
}

// section ties a tag to the place in memory that it is written from and read to.
type section struct {
	tag      uint32
	name     string
	unit     int // the payload is a multiple of this many bytes,
	min, max int // and at least, at most so many
	// payload is what to write.
	payload func() []byte
	// room makes room for a payload of n bytes, and returns it.
	room func(n int) []byte
}

// one is a section that holds a structure.
func one[T any](tag uint32, name string, p *T) section {
	size := len(bytesOf(p))
	return section{
		tag: tag, name: name, unit: size, min: size, max: size,
		payload: func() []byte { return bytesOf(p) },
		room:    func(int) []byte { return bytesOf(p) },
	}
}

// array is a section that holds from least to most structures.
func array[T any](tag uint32, name string, least, most int, p *[]T) section {
	size := len(bytesOf(new(T)))
	return section{
		tag: tag, name: name, unit: size, min: least * size, max: most * size,
		payload: func() []byte { return bytesOfAll(*p) },
		room: func(n int) []byte {
			*p = make([]T, n/size)
			return bytesOfAll(*p)
		},
	}
}

// maxMSRs is how many MSRs a state may have.
const maxMSRs = 1024

func (s *VCPUState) form() form {
	return form{"vCPU state", 'v' | 'C'<<8 | 'P'<<16 | 'U'<<24, VCPUStateVersion, []section{
		array(1, "CPUID", 0, maxCPUIDEntries, &s.CPUID),
		one(2, "TSC", &s.TSC),
		one(3, "MP_STATE", &s.MPState),
		one(4, "VCPU_EVENTS", &s.Events),
		one(5, "REGS", &s.Regs),
		one(6, "SREGS2", &s.Sregs),
		one(7, "XCRS", &s.XCRs),
		array(8, "XSAVE", minXSaveSize, maxXSaveSize, &s.XSave),
		one(9, "DEBUGREGS", &s.DebugRegs),
		one(10, "LAPIC", &s.LAPIC),
		array(11, "MSRS", 0, maxMSRs, &s.MSRs),
	}}
}

func (s *VMState) form() form {
	return form{"VM state", 'V' | 'M'<<8 | 'S'<<16 | 'T'<<24, VMStateVersion, []section{
		one(1, "PIC master", &s.PICMaster),
		one(2, "PIC slave", &s.PICSlave),
		one(3, "IOAPIC", &s.IOAPIC),
		one(4, "PIT", &s.PIT),
		one(5, "CLOCK", &s.Clock),
	}}
}

// MarshalBinary gives the form described above.
func (s *VCPUState) MarshalBinary() ([]byte, error) { return s.form().marshal() }

// MarshalBinary gives the form described above.
func (s *VMState) MarshalBinary() ([]byte, error) { return s.form().marshal() }

// UnmarshalBinary takes what MarshalBinary gave, from anybody: it is bounded in
// every length, and on an error, which names the section, s is as it was. That
// the values are possible ones is for KVM to check, in LoadState.
func (s *VCPUState) UnmarshalBinary(b []byte) error {
	var fresh VCPUState
	if err := fresh.form().unmarshal(b); err != nil {
		return err
	}
	*s = fresh
	return nil
}

// UnmarshalBinary is like VCPUState's.
func (s *VMState) UnmarshalBinary(b []byte) error {
	var fresh VMState
	if err := fresh.form().unmarshal(b); err != nil {
		return err
	}
	*s = fresh
	return nil
}

func (f form) marshal() ([]byte, error) {
	le := binary.LittleEndian
	size := headerSize
	for _, s := range f.sections {
		size += headerSize + len(s.payload())
	}
	b := le.AppendUint32(make([]byte, 0, size), f.magic)
	b = le.AppendUint32(b, f.version)
	for _, s := range f.sections {
		payload := s.payload()
		if err := s.checkSize(len(payload)); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		b = le.AppendUint32(b, s.tag)
		b = le.AppendUint32(b, uint32(len(payload)))
		b = append(b, payload...)
	}
	return b, nil
}

func (f form) unmarshal(b []byte) error {
	le := binary.LittleEndian
	if len(b) < headerSize || le.Uint32(b) != f.magic {
		return fmt.Errorf("%s: these %d bytes are not one", f.name, len(b))
	}
	if v := le.Uint32(b[4:]); v != f.version {
		return fmt.Errorf("%s: version %d, this program reads version %d", f.name, v, f.version)
	}
	seen := make(map[uint32]bool)
	for b = b[headerSize:]; len(b) > 0; {
		if len(b) < headerSize {
			return fmt.Errorf("%s: %d bytes left over after %d sections", f.name, len(b), len(seen))
		}
		tag, n := le.Uint32(b), uint64(le.Uint32(b[4:]))
		b = b[headerSize:]
		s, ok := f.section(tag)
		switch {
		case !ok:
			return fmt.Errorf("%s: unknown section %d", f.name, tag)
		case seen[tag]:
			return fmt.Errorf("%s: section %s is there twice", f.name, s.name)
		case n > uint64(len(b)):
			return fmt.Errorf("%s: section %s: %d bytes announced, %d left", f.name, s.name, n, len(b))
		}
		if err := s.checkSize(int(n)); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		copy(s.room(int(n)), b)
		seen[tag] = true
		b = b[n:]
	}
	for _, s := range f.sections {
		if !seen[s.tag] {
			return fmt.Errorf("%s: section %s is missing", f.name, s.name)
		}
	}
	return nil
}

func (f form) section(tag uint32) (section, bool) {
	for _, s := range f.sections {
		if s.tag == tag {
			return s, true
		}
	}
	return section{}, false
}

func (s section) checkSize(n int) error {
	if n < s.min || n > s.max || n%s.unit != 0 {
		return fmt.Errorf("section %s: %d bytes; want %d to %d, in steps of %d", s.name, n, s.min, s.max, s.unit)
	}
	return nil
}
