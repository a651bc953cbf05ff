package guest

import "fmt"

// The guest-physical memory map. doc.go draws it.
const (
	LowRAMEnd   = 0xC000_0000   // RAM below 4 GiB ends here at the latest
	HighRAMBase = 0x1_0000_0000 // the rest of RAM starts here
	MMIOBase    = 0xD000_0000   // first virtio-mmio register window
	MMIOSize    = 0x1000        // distance from one window to the next
	MMIOEnd     = IOAPICBase

	IOAPICBase = 0xFEC0_0000
	LAPICBase  = 0xFEE0_0000

	// KVM on VMX without unrestricted guest keeps a page table and a TSS in
	// the guest's address space: KVM_SET_IDENTITY_MAP_ADDR (one page) and
	// KVM_SET_TSS_ADDR (three pages).
	IdentityMapAddr = 0xFEFF_C000
	TSSAddr         = 0xFEFF_D000
	kvmPagesEnd     = TSSAddr + 3*pageSize
)

// Legacy ports and interrupt lines, as the DSDT, FADT and MADT announce them.
const (
	COM1Port    = 0x3F8
	COM1Ports   = 8
	COM1IRQ     = 4
	RTCPort     = 0x70
	RTCPorts    = 2
	RTCIRQ      = 8
	I8042Data   = 0x60
	I8042Cmd    = 0x64
	I8042Reset  = 0xFE // written to I8042Cmd: pulse the CPU's reset line
	PM1aEvent   = 0x600
	PM1aControl = 0x604
	SCIIRQ      = 9
	PVPanicPort = 0x505
)

// Limits on a machine's size.
const (
	MinRAM  = 128 << 20
	MaxRAM  = 64 << 30
	MaxCPUs = 32
)

// Where this package puts what it writes into low memory.
const (
	pageSize = 4096

	bdaBase      = 0x400
	gdtAddr      = 0x500
	startInfo    = 0x6000
	zeroPageAddr = 0x7000
	pageTables   = 0x9000
	cmdlineAddr  = 0x2_0000
	cmdlineArea  = 0x1_0000
	ebdaBase     = 0x9_FC00
	baseMemEnd   = 0xA_0000
	acpiBase     = 0xE_0000
	acpiEnd      = 0x10_0000
	kernelMin    = 0x10_0000 // no part of a kernel or initramfs below this
)

// RAMRegion is one contiguous piece of guest RAM: Size bytes at GPA, which
// are the bytes from Offset on in the RAM block.
type RAMRegion struct {
	GPA, Offset, Size uint64
}

// RAMRegions divides size bytes of RAM into the piece below LowRAMEnd and, if
// there is more, the piece from HighRAMBase on.
//
// Errors: size below MinRAM, above MaxRAM, or no multiple of 1 MiB.
func RAMRegions(size uint64) ([]RAMRegion, error) {
	switch {
	case size < MinRAM || size > MaxRAM:
		return nil, fmt.Errorf("guest memory %s: must be from %s to %s", bytesText(size), bytesText(MinRAM), bytesText(MaxRAM))
	case size%(1<<20) != 0:
		return nil, fmt.Errorf("guest memory %d bytes: must be a multiple of 1 MiB", size)
	case size <= LowRAMEnd:
		return []RAMRegion{{Size: size}}, nil
	}
	return []RAMRegion{
		{Size: LowRAMEnd},
		{GPA: HighRAMBase, Offset: LowRAMEnd, Size: size - LowRAMEnd},
	}, nil
}

// E820 entry types; hvm_memmap_table_entry uses the same numbers.
const (
	e820RAM      = 1
	e820Reserved = 2
)

type e820Entry struct {
	addr, size uint64
	typ        uint32
}

// e820Map is the firmware memory map for ram, in ascending order. ram[0] must
// start at 0 and end above 1 MiB.
func e820Map(ram []RAMRegion) []e820Entry {
	m := []e820Entry{
		{0, ebdaBase, e820RAM},
		{ebdaBase, baseMemEnd - ebdaBase, e820Reserved},
		{acpiBase, acpiEnd - acpiBase, e820Reserved},
		{kernelMin, ram[0].Size - kernelMin, e820RAM},
		{IdentityMapAddr, kvmPagesEnd - IdentityMapAddr, e820Reserved},
	}
	for _, r := range ram[1:] {
		m = append(m, e820Entry{r.GPA, r.Size, e820RAM})
	}
	return m
}

// bytesText is n in the largest binary unit that shows it exactly.
func bytesText(n uint64) string {
	units := []struct {
		shift uint
		name  string
	}{{30, "GiB"}, {20, "MiB"}, {10, "KiB"}}
	for _, u := range units {
		if n != 0 && n%(1<<u.shift) == 0 {
			return fmt.Sprintf("%d %s", n>>u.shift, u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
