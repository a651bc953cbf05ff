package guest

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Offsets in a bzImage, which are also those in the zero page
// (Documentation/arch/x86/boot.rst, "Details of Header Fields").
const (
	hdrStart         = 0x1F1
	hdrSetupSects    = 0x1F1
	hdrSyssize       = 0x1F4
	hdrVidMode       = 0x1FA
	hdrBootFlag      = 0x1FE
	hdrJump          = 0x200
	hdrMagic         = 0x202
	hdrVersion       = 0x206
	hdrTypeOfLoader  = 0x210
	hdrLoadflags     = 0x211
	hdrRamdiskImage  = 0x218
	hdrRamdiskSize   = 0x21C
	hdrCmdLinePtr    = 0x228
	hdrInitrdAddrMax = 0x22C
	hdrKernelAlign   = 0x230
	hdrRelocatable   = 0x234
	hdrXloadflags    = 0x236
	hdrCmdlineSize   = 0x238
	hdrPrefAddress   = 0x258
	hdrInitSize      = 0x260
	hdrEnd212        = 0x268 // a 2.12 header reaches at least to here
	hdrMaxEnd        = 0x290 // the zero page has other things from here on
)

const (
	setupMin    = 1024 // boot sector and the sector that holds the header
	sectorSize  = 512
	bootFlag    = 0xAA55
	headerMagic = "HdrS"

	// 2.12 (Linux 3.8) brought xloadflags, and with it the promise of a
	// 64-bit entry point at 0x200.
	protocolMin  = 0x020C
	entry64      = 0x200
	loadedHigh   = 1 << 0 // loadflags
	keepSegments = 1 << 6
	xlfKernel64  = 1 << 0 // xloadflags
	xlfAbove4G   = 1 << 1

	loaderUnknown = 0xFF // type_of_loader: no id assigned
	vidModeNormal = 0xFFFF
)

func isBzImage(head []byte) bool {
	return len(head) >= hdrVersion+2 &&
		binary.LittleEndian.Uint16(head[hdrBootFlag:]) == bootFlag &&
		string(head[hdrMagic:hdrMagic+4]) == headerMagic
}

// parseBzImage checks a bzImage whose first setupMin bytes (or fewer, if the
// file is shorter) are head.
func parseBzImage(img Image, head []byte) (*kernel, error) {
	le := binary.LittleEndian
	if v := le.Uint16(head[hdrVersion:]); v < protocolMin {
		return nil, fmt.Errorf("bzImage: too old: boot protocol %d.%02d, need %d.%02d (Linux 3.8) or later",
			v>>8, v&0xff, protocolMin>>8, protocolMin&0xff)
	}
	if len(head) < setupMin {
		return nil, fmt.Errorf("bzImage: truncated: the setup code needs at least %d bytes, the file has %d", setupMin, len(head))
	}
	hdrEnd := hdrMagic + int(head[hdrJump+1])
	if hdrEnd < hdrEnd212 {
		return nil, fmt.Errorf("bzImage: corrupt: setup header ends at %#x, boot protocol 2.12 has it end at %#x or later", hdrEnd, hdrEnd212)
	}
	if le.Uint16(head[hdrXloadflags:])&xlfKernel64 == 0 {
		return nil, fmt.Errorf("bzImage: a 32-bit kernel (no 64-bit entry point, xloadflags %#x): need an x86-64 kernel", le.Uint16(head[hdrXloadflags:]))
	}
	if head[hdrLoadflags]&loadedHigh == 0 {
		return nil, fmt.Errorf("bzImage: a zImage (loadflags %#x): need a kernel that loads above 1 MiB", head[hdrLoadflags])
	}

	sects := uint64(head[hdrSetupSects])
	if sects == 0 {
		sects = 4
	}
	setup, payload := (sects+1)*sectorSize, uint64(le.Uint32(head[hdrSyssize:]))*16
	if payload <= entry64 {
		return nil, fmt.Errorf("bzImage: corrupt: %d bytes of kernel", payload)
	}
	if setup+payload > uint64(img.Size) {
		return nil, fmt.Errorf("bzImage: truncated: the kernel needs %d bytes, the file has %d", setup+payload, img.Size)
	}

	addr := le.Uint64(head[hdrPrefAddress:])
	if head[hdrRelocatable] != 0 {
		align := le.Uint32(head[hdrKernelAlign:])
		if bits.OnesCount32(align) != 1 {
			return nil, fmt.Errorf("bzImage: corrupt: kernel_alignment %#x is no power of two", align)
		}
		addr = (addr + uint64(align) - 1) &^ (uint64(align) - 1)
	}
	size := max(uint64(le.Uint32(head[hdrInitSize:])), payload)
	if addr < kernelMin || addr > LowRAMEnd {
		return nil, fmt.Errorf("bzImage: does not fit: it wants %s at %#x, outside [%#x, %#x)", bytesText(size), addr, kernelMin, LowRAMEnd)
	}
	return &kernel{
		format:        "bzImage",
		segments:      []segment{{gpa: addr, memSize: size, fileOff: setup, fileLen: payload}},
		entry:         addr + entry64,
		setup:         head[hdrStart:min(hdrEnd, hdrMaxEnd)],
		cmdlineMax:    int(min(le.Uint32(head[hdrCmdlineSize:]), cmdlineArea-1)),
		initrdLimit:   uint64(le.Uint32(head[hdrInitrdAddrMax:])) + 1,
		initrdAbove4G: le.Uint16(head[hdrXloadflags:])&xlfAbove4G != 0,
	}, nil
}
