package guest

import "encoding/binary"

// Fields of the zero page outside the setup header
// (Documentation/arch/x86/zero-page.rst).
const (
	zpACPIRSDP     = 0x070
	zpExtRamdisk   = 0x0C0 // bits 63:32 of the address
	zpExtRdSize    = 0x0C4 // and of the size
	zpE820Count    = 0x1E8
	zpE820Table    = 0x2D0
	zpE820EntryLen = 20
)

// zeroPage is struct boot_params for the 64-bit entry point: the kernel's own
// setup header, with the fields that a boot loader fills in.
func (b *bootParams) zeroPage(setup []byte) piece {
	le, zp := binary.LittleEndian, make([]byte, pageSize)
	copy(zp[hdrStart:], setup)
	le.PutUint16(zp[hdrVidMode:], vidModeNormal)
	zp[hdrTypeOfLoader] = loaderUnknown
	zp[hdrLoadflags] &^= keepSegments
	le.PutUint32(zp[hdrCmdLinePtr:], cmdlineAddr)
	le.PutUint64(zp[zpACPIRSDP:], b.rsdp)
	if n := b.initrd.size(); n > 0 {
		le.PutUint32(zp[hdrRamdiskImage:], uint32(b.initrd.start))
		le.PutUint32(zp[hdrRamdiskSize:], uint32(n))
		le.PutUint32(zp[zpExtRamdisk:], uint32(b.initrd.start>>32))
		le.PutUint32(zp[zpExtRdSize:], uint32(n>>32))
	}
	m := e820Map(b.ram)
	zp[zpE820Count] = byte(len(m))
	for i, e := range m {
		p := zp[zpE820Table+i*zpE820EntryLen:]
		le.PutUint64(p, e.addr)
		le.PutUint64(p[8:], e.size)
		le.PutUint32(p[16:], e.typ)
	}
	return piece{"zero page", zeroPageAddr, zp}
}

// elfSetupHeader stands in for the setup header of a kernel that is entered by
// the 64-bit protocol but, as a vmlinux, carries none.
func elfSetupHeader() []byte {
	le, h := binary.LittleEndian, make([]byte, hdrEnd212)
	le.PutUint16(h[hdrBootFlag:], bootFlag)
	copy(h[hdrMagic:], headerMagic)
	le.PutUint16(h[hdrVersion:], protocolMin)
	h[hdrLoadflags] = loadedHigh
	le.PutUint16(h[hdrXloadflags:], xlfKernel64)
	return h[hdrStart:]
}

// biosData is the part of the BIOS data area that kernels and boot-time tools
// look at: COM1's port, the EBDA's segment, KiB of base memory.
func biosData() piece {
	le, p := binary.LittleEndian, make([]byte, 0x15)
	le.PutUint16(p, COM1Port)
	le.PutUint16(p[0x0E:], ebdaBase>>4)
	le.PutUint16(p[0x13:], ebdaBase>>10)
	return piece{"BIOS data area", bdaBase, p}
}
