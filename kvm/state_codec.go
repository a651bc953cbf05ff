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
	encode   func([]byte) ([]byte, error)
	decode   func([]byte) error
}

// one is a section that holds a structure.
func one[T any](tag uint32, name string, p *T) section {
	size := binary.Size(p)
	return section{
		tag: tag, name: name, unit: size, min: size, max: size,
		encode: func(b []byte) ([]byte, error) { return binary.Append(b, binary.LittleEndian, p) },
		decode: func(b []byte) error { _, err := binary.Decode(b, binary.LittleEndian, p); return err },
	}
}

// array is a section that holds from least to most structures.
func array[T any](tag uint32, name string, least, most int, p *[]T) section {
	size := binary.Size(new(T))
	return section{
		tag: tag, name: name, unit: size, min: least * size, max: most * size,
		encode: func(b []byte) ([]byte, error) { return binary.Append(b, binary.LittleEndian, *p) },
		decode: func(b []byte) error {
			*p = make([]T, len(b)/size)
			_, err := binary.Decode(b, binary.LittleEndian, *p)
			return err
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
	b := le.AppendUint32(nil, f.magic)
	b = le.AppendUint32(b, f.version)
	for _, s := range f.sections {
		b = le.AppendUint32(b, s.tag)
		at := len(b)
		b = le.AppendUint32(b, 0)
		var err error
		if b, err = s.encode(b); err != nil {
			return nil, fmt.Errorf("%s: section %s: %w", f.name, s.name, err)
		}
		n := len(b) - at - 4
		if err := s.checkSize(n); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		le.PutUint32(b[at:], uint32(n))
	}
	return b, nil
}

func (f form) unmarshal(b []byte) error {
	le := binary.LittleEndian
	const headerSize = 8 // of the whole and of each section
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
		if err := s.decode(b[:n]); err != nil {
			return fmt.Errorf("%s: section %s: %w", f.name, s.name, err)
		}
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
