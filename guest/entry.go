package guest

import (
	"encoding/binary"
	"fmt"

	"microvm/kvm"
)

// Mode is the processor mode in which a kernel is entered.
type Mode int

const (
	// Long64 is 64-bit mode with an identity mapping of the first 4 GiB and
	// the zero page's address in RSI (boot.rst, "64-bit Boot Protocol").
	Long64 Mode = iota
	// PVH32 is flat 32-bit protected mode without paging and the start
	// info's address in EBX (Xen, docs/misc/pvh.pandoc).
	PVH32
)

func (m Mode) String() string {
	switch m {
	case Long64:
		return "64-bit Linux boot protocol"
	case PVH32:
		return "PVH"
	}
	return fmt.Sprintf("Mode(%d)", int(m))
}

// Entry is how the boot CPU enters the kernel that Load put in guest memory.
type Entry struct {
	Mode   Mode
	IP     uint64 // first instruction
	Params uint64 // GPA of zero page or start info
}

// Control register, EFER and segment bits (Intel SDM volume 3, chapters 2, 3).
const (
	cr0PE = 1 << 0
	cr0ET = 1 << 4
	cr0NE = 1 << 5
	cr0PG = 1 << 31

	cr4PAE = 1 << 5

	eferLME = 1 << 8
	eferLMA = 1 << 10

	rflagsFixed = 1 << 1 // IF, TF, VM, DF clear

	bootCS = 0x10 // __BOOT_CS
	bootDS = 0x18 // __BOOT_DS

	segCode = 11 // execute, read, accessed
	segData = 3  // read, write, accessed
	segTSS  = 11 // busy 32- or 64-bit TSS

	tssLimit = 0x67
)

// Apply sets the boot CPU's general, segment and control registers. The other
// CPUs need nothing: KVM leaves them waiting for INIT and SIPI.
func (e *Entry) Apply(v *kvm.VCPU) error {
	sregs, err := v.Sregs()
	if err != nil {
		return fmt.Errorf("vCPU %d: read registers: %w", v.ID(), err)
	}
	regs := e.setRegisters(sregs)
	if err := v.SetSregs(sregs); err != nil {
		return fmt.Errorf("vCPU %d: set %s entry: %w", v.ID(), e.Mode, err)
	}
	if err := v.SetRegs(&regs); err != nil {
		return fmt.Errorf("vCPU %d: set %s entry: %w", v.ID(), e.Mode, err)
	}
	return nil
}

// setRegisters changes s, which holds the registers after reset, for this
// entry, and returns the general registers that go with it.
func (e *Entry) setRegisters(s *kvm.Sregs) kvm.Regs {
	code := flatSegment(bootCS, segCode)
	data := flatSegment(bootDS, segData)
	regs := kvm.Regs{RIP: e.IP, RFLAGS: rflagsFixed}
	s.CR4, s.EFER = 0, 0
	s.GDT.Base, s.GDT.Limit = 0, 0
	s.IDT.Base, s.IDT.Limit = 0, 0
	switch e.Mode {
	case Long64:
		code.DB, code.L = 0, 1
		s.GDT.Base, s.GDT.Limit = gdtAddr, uint16(len(bootGDT().data)-1)
		s.CR0 = cr0PE | cr0ET | cr0NE | cr0PG
		s.CR3 = pageTables
		s.CR4 = cr4PAE
		s.EFER = eferLME | eferLMA
		regs.RSI = e.Params
	case PVH32:
		s.CR0 = cr0PE | cr0ET
		s.CR3 = 0
		regs.RBX = e.Params
	}
	s.CS, s.DS, s.ES, s.FS, s.GS, s.SS = code, data, data, data, data, data
	s.TR = kvm.Segment{Limit: tssLimit, Typ: segTSS, Present: 1}
	return regs
}

// flatSegment covers 4 GiB from 0, 32-bit.
func flatSegment(selector uint16, typ uint8) kvm.Segment {
	return kvm.Segment{Limit: 0xFFFF_FFFF, Selector: selector, Typ: typ, Present: 1, DB: 1, S: 1, G: 1}
}

// bootGDT holds what the 64-bit boot protocol asks for: __BOOT_CS, flat 64-bit
// code, and __BOOT_DS, flat data.
func bootGDT() piece {
	return piece{"boot GDT", gdtAddr, u64s(0, 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF)}
}

// bootPageTables maps the first 4 GiB to themselves in pages of 2 MiB: a PML4,
// a PDPT and four page directories.
func bootPageTables() piece {
	const (
		present, write, large = 1 << 0, 1 << 1, 1 << 7
		directories           = 4
		entries               = pageSize / 8
	)
	le, t := binary.LittleEndian, make([]byte, (2+directories)*pageSize)
	le.PutUint64(t, pageTables+pageSize|present|write)
	for d := range uint64(directories) {
		le.PutUint64(t[pageSize+8*d:], pageTables+(2+d)*pageSize|present|write)
		for i := range uint64(entries) {
			page := (d*entries + i) << 21
			le.PutUint64(t[(2+d)*pageSize+8*i:], page|present|write|large)
		}
	}
	return piece{"boot page tables", pageTables, t}
}
