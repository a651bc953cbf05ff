package guest

import "encoding/binary"

// struct hvm_start_info version 1 and what it points to
// (Xen, public/arch-x86/hvm/start_info.h).
const (
	startInfoMagic   = 0x336EC578
	startInfoVersion = 1
	startInfoLen     = 56
	modlistLen       = 32
	memmapLen        = 24
)

// startInfo is the start info, followed by the module list (the initramfs, if
// there is one) and the memory map.
func (b *bootParams) startInfo() piece {
	m := e820Map(b.ram)
	le, p := binary.LittleEndian, make([]byte, startInfoLen+modlistLen+memmapLen*len(m))
	le.PutUint32(p[0:], startInfoMagic)
	le.PutUint32(p[4:], startInfoVersion)
	le.PutUint64(p[24:], cmdlineAddr)
	le.PutUint64(p[32:], b.rsdp)
	le.PutUint64(p[40:], startInfo+startInfoLen+modlistLen)
	le.PutUint32(p[48:], uint32(len(m)))

	if n := b.initrd.size(); n > 0 {
		le.PutUint32(p[12:], 1)
		le.PutUint64(p[16:], startInfo+startInfoLen)
		mod := p[startInfoLen:]
		le.PutUint64(mod, b.initrd.start)
		le.PutUint64(mod[8:], n)
	}
	for i, e := range m {
		ent := p[startInfoLen+modlistLen+i*memmapLen:]
		le.PutUint64(ent, e.addr)
		le.PutUint64(ent[8:], e.size)
		le.PutUint32(ent[16:], e.typ)
	}
	return piece{"PVH start info", startInfo, p}
}
