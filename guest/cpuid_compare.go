package guest

import (
	"fmt"

	"microvm/kvm"
)

// CompareCPUID names what a guest that has been told need would miss on a host
// that would tell it have; both are results of CPUID for the same vCPU. None
// missing: the guest can move there. Features go by their names in
// /proc/cpuinfo, bits without a name as "cpuid LEAF.INDEX REGISTER[BIT]".
//
// Features that only have has are no hindrance: the guest keeps its CPUID. Not
// compared is what no guest depends on (family and model, caches) and what the
// VM's own configuration decides (topology).
func CompareCPUID(need, have []kvm.CPUIDEntry) []string {
	var out []string
	if n, h := cpuVendor(need), cpuVendor(have); n != h {
		out = append(out, fmt.Sprintf("CPU vendor %s (here %s)", n, h))
	}
	for _, w := range featureWords {
		n, _ := findCPUID(need, w.leaf, w.index)
		h, _ := findCPUID(have, w.leaf, w.index)
		out = append(out, w.missing(w.of(n), w.of(h))...)
	}
	out = append(out, compareXSAVE(need, have)...)
	return append(out, compareAddressWidths(need, have)...)
}

// xsaveNames are the state components by their bits in XCR0 and IA32_XSS.
var xsaveNames = map[int]string{
	0: "x87", 1: "sse", 2: "avx", 3: "bndregs", 4: "bndcsr", 5: "avx512 opmask", 6: "avx512 zmm_hi256",
	7: "avx512 hi16_zmm", 8: "pt", 9: "pkru", 10: "pasid", 11: "cet_u", 12: "cet_s", 13: "hdc",
	14: "uintr", 15: "lbr", 16: "hwp", 17: "amx tilecfg", 18: "amx tiledata", 19: "apx",
}

// compareXSAVE compares which state components there are and where each lies
// in the XSAVE area, which a guest has read and goes by.
func compareXSAVE(need, have []kvm.CPUIDEntry) []string {
	user := func(es []kvm.CPUIDEntry) uint64 {
		e, _ := findCPUID(es, 0xD, 0)
		return uint64(e.Edx)<<32 | uint64(e.Eax)
	}
	supervisor := func(es []kvm.CPUIDEntry) uint64 {
		e, _ := findCPUID(es, 0xD, 1)
		return uint64(e.Edx)<<32 | uint64(e.Ecx)
	}
	n, h := user(need)|supervisor(need), user(have)|supervisor(have)
	var out []string
	for i := range 64 {
		if n>>i&1 == 0 {
			continue
		}
		name := "xsave component " + fmt.Sprint(i)
		if s, ok := xsaveNames[i]; ok {
			name += " (" + s + ")"
		}
		if h>>i&1 == 0 {
			out = append(out, name)
			continue
		}
		if i < 2 {
			continue // x87 and SSE are where FXSAVE puts them
		}
		a, _ := findCPUID(need, 0xD, uint32(i))
		b, _ := findCPUID(have, 0xD, uint32(i))
		const layoutFlags = 3 // supervisor state; aligned when compacted
		if a.Eax != b.Eax || a.Ebx != b.Ebx || a.Ecx&layoutFlags != b.Ecx&layoutFlags {
			out = append(out, fmt.Sprintf("%s of %d bytes at offset %d (here %d at %d)", name, a.Eax, a.Ebx, b.Eax, b.Ebx))
		}
	}
	return out
}

// compareAddressWidths compares how many bits an address has: with fewer, what
// the guest has mapped can't be mapped.
func compareAddressWidths(need, have []kvm.CPUIDEntry) []string {
	n, _ := findCPUID(need, 0x8000_0008, 0)
	h, _ := findCPUID(have, 0x8000_0008, 0)
	var out []string
	for i, what := range []string{"physical", "linear"} {
		if a, b := n.Eax>>(8*i)&0xFF, h.Eax>>(8*i)&0xFF; a > b {
			out = append(out, fmt.Sprintf("%d-bit %s addresses (here %d-bit)", a, what, b))
		}
	}
	return out
}
