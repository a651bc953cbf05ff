package guest

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"

	"microvm/kvm"
)

// CPUIDConfig is what a vCPU's CPUID depends on besides the host.
type CPUIDConfig struct {
	Index, CPUs int    // this vCPU, its APIC id, of how many
	TSCKHz      uint32 // 0: unknown
	TSCDeadline bool   // the host has KVM_CAP_TSC_DEADLINE_TIMER, and the local APIC is KVM's
}

// Feature bits that CPUID sets or clears itself.
const (
	f1cDTES64, f1cMonitor, f1cDSCPL, f1cVMX, f1cSMX = 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 6
	f1cEIST, f1cTM2, f1cPDCM, f1cOSXSAVE            = 1 << 7, 1 << 8, 1 << 15, 1 << 27
	f1cX2APIC, f1cTSCDeadline, f1cHypervisor        = 1 << 21, 1 << 24, 1 << 31
	f1dDS, f1dACPI, f1dHTT, f1dTM, f1dPBE           = 1 << 21, 1 << 22, 1 << 28, 1 << 29, 1 << 31

	f6aARAT = 1 << 2

	f7bSGX, f7bPT      = 1 << 2, 1 << 25
	f7cOSPKE, f7cSGXLC = 1 << 4, 1 << 30
	f7dArchLBR         = 1 << 19

	xssPT, xssLBR = 1 << 8, 1 << 15 // IA32_XSS, in leaf 0xD.1 ECX

	fx1cCMPLegacy, fx1cSVM, fx1cIBS, fx1cSkinit, fx1cWDT = 1 << 1, 1 << 2, 1 << 10, 1 << 12, 1 << 13
	fx1cLWP, fx1cNodeID, fx1cTopoExt                     = 1 << 15, 1 << 19, 1 << 22
	fx1cPerfCore, fx1cPerfNB, fx1cPTSC, fx1cPerfLLC      = 1 << 23, 1 << 24, 1 << 27, 1 << 28
)

// hiddenLeaves describe what no guest gets: MWAIT, the PMU, SGX, PT, LBR,
// nested SVM, IBS, SEV, and AMD's own form of topology, which the leaves below
// give.
var hiddenLeaves = []uint32{
	0x5, 0xA, 0x12, 0x14, 0x1C, 0x23,
	0x8000_000A, 0x8000_001B, 0x8000_001F, 0x8000_0022, 0x8000_0026,
}

// CPUID is what vCPU c.Index is told, made from what KVM supports: one socket
// of single-threaded cores that share the last cache, APIC ids from 0 up, the
// KVM leaves (0x4000_0000 and 0x4000_0001) as they are, and none of what this
// machine doesn't have or can't migrate. supported is not changed.
func CPUID(supported []kvm.CPUIDEntry, c CPUIDConfig) []kvm.CPUIDEntry {
	vendor := cpuVendor(supported)
	topology := []uint32{0xB, 0x1F}
	out := make([]kvm.CPUIDEntry, 0, len(supported)+6)
	for _, e := range supported {
		switch {
		case slices.Contains(hiddenLeaves, e.Function):
			continue
		case slices.Contains(topology, e.Function):
			continue // made below
		}
		c.adjust(&e, vendor)
		out = append(out, e)
	}
	last, _ := findCPUID(supported, 0, 0)
	for _, leaf := range topology {
		if leaf <= last.Eax {
			out = append(out, c.extendedTopology(leaf)...)
		}
	}
	if vendor == vendorIntel && c.TSCKHz != 0 {
		out = c.addTSCFrequency(out, last.Eax)
	}
	number(out, c.Index)
	return out
}

// CPUIDOf is what vCPU number index of a machine is told, where entries is what
// another of its vCPUs is: they differ in nothing but the APIC id.
func CPUIDOf(index int, entries []kvm.CPUIDEntry) []kvm.CPUIDEntry {
	out := slices.Clone(entries)
	number(out, index)
	return out
}

// number puts a vCPU's APIC id wherever CPUID tells it.
func number(entries []kvm.CPUIDEntry, index int) {
	id, vendor := uint32(index), cpuVendor(entries)
	for i := range entries {
		e := &entries[i]
		switch e.Function {
		case 0x1:
			e.Ebx = e.Ebx&^(0xFF<<24) | id<<24
		case 0xB, 0x1F:
			e.Edx = id
		case 0x8000_001E:
			if isAMD(vendor) {
				e.Eax, e.Ebx = id, id // APIC id; core id, one thread in it, node 0 of 1
			}
		}
	}
}

const (
	vendorIntel = "GenuineIntel"
	vendorAMD   = "AuthenticAMD"
	vendorHygon = "HygonGenuine"
)

func isAMD(vendor string) bool { return vendor == vendorAMD || vendor == vendorHygon }

func cpuVendor(entries []kvm.CPUIDEntry) string {
	e, _ := findCPUID(entries, 0, 0)
	var b []byte
	for _, r := range []uint32{e.Ebx, e.Edx, e.Ecx} {
		b = binary.LittleEndian.AppendUint32(b, r)
	}
	return string(b)
}

func findCPUID(entries []kvm.CPUIDEntry, leaf, index uint32) (kvm.CPUIDEntry, bool) {
	for _, e := range entries {
		if e.Function == leaf && (e.Index == index || e.Flags&kvm.CPUIDSignificantIndex == 0) {
			return e, true
		}
	}
	return kvm.CPUIDEntry{}, false
}

// idBits is how many bits of an APIC id number the cores.
func (c CPUIDConfig) idBits() int { return bits.Len(uint(c.CPUs - 1)) }

// adjust changes one entry of KVM's.
func (c CPUIDConfig) adjust(e *kvm.CPUIDEntry, vendor string) {
	amd := isAMD(vendor)
	switch e.Function {
	case 0x1:
		e.Ebx = e.Ebx&0xFFFF | 1<<c.idBits()<<16
		e.Ecx &^= f1cDTES64 | f1cMonitor | f1cDSCPL | f1cVMX | f1cSMX | f1cEIST | f1cTM2 | f1cPDCM | f1cOSXSAVE
		e.Edx &^= f1dDS | f1dACPI | f1dTM | f1dPBE
		e.Ecx |= f1cX2APIC | f1cHypervisor
		setBit(&e.Ecx, f1cTSCDeadline, c.TSCDeadline)
		setBit(&e.Edx, f1dHTT, c.CPUs > 1)
	case 0x4:
		c.shareCache(e)
		if e.Eax&0x1F != 0 {
			e.Eax = e.Eax&^(0x3F<<26) | (1<<c.idBits()-1)<<26 // cores in the package
		}
	case 0x6:
		e.Eax, e.Ebx, e.Ecx, e.Edx = e.Eax&f6aARAT, 0, 0, 0
	case 0x7:
		if e.Index == 0 {
			e.Ebx &^= f7bSGX | f7bPT
			e.Ecx &^= f7cOSPKE | f7cSGXLC
			e.Edx &^= f7dArchLBR
		}
	case 0xD:
		if e.Index == 1 {
			e.Ecx &^= xssPT | xssLBR
		}
	case 0x8000_0001:
		e.Ecx &^= fx1cSVM | fx1cIBS | fx1cSkinit | fx1cWDT | fx1cLWP | fx1cNodeID |
			fx1cPerfCore | fx1cPerfNB | fx1cPTSC | fx1cPerfLLC
		setBit(&e.Ecx, fx1cCMPLegacy, amd && c.CPUs > 1)
	case 0x8000_0008:
		e.Ecx = 0
		if amd {
			e.Ecx = uint32(c.CPUs-1) | uint32(c.idBits())<<12
		}
	case 0x8000_001D:
		c.shareCache(e)
	case 0x8000_001E:
		e.Eax, e.Ebx, e.Ecx, e.Edx = 0, 0, 0, 0
	}
}

func setBit(word *uint32, bit uint32, on bool) {
	if *word &^= bit; on {
		*word |= bit
	}
}

// shareCache says of a cache of leaf 4 or 0x8000_001D who shares it: everyone
// from level 3 up, nobody below.
func (c CPUIDConfig) shareCache(e *kvm.CPUIDEntry) {
	kind, level := e.Eax&0x1F, e.Eax>>5&7
	if kind == 0 {
		return
	}
	e.Eax &^= 0xFFF << 14
	if level >= 3 {
		e.Eax |= (1<<c.idBits() - 1) << 14
	}
}

// extendedTopology is leaf 0xB or 0x1F: a level of threads, a level of cores,
// and the level that says there are no more.
func (c CPUIDConfig) extendedTopology(leaf uint32) []kvm.CPUIDEntry {
	const typeSMT, typeCore = 1, 2
	level := func(index, shift, count, typ uint32) kvm.CPUIDEntry {
		return kvm.CPUIDEntry{Function: leaf, Index: index, Flags: kvm.CPUIDSignificantIndex,
			Eax: shift, Ebx: count, Ecx: index | typ<<8}
	}
	return []kvm.CPUIDEntry{
		level(0, 0, 1, typeSMT),
		level(1, uint32(c.idBits()), uint32(c.CPUs), typeCore),
		level(2, 0, 0, 0),
	}
}

// addTSCFrequency gives leaves 0x15 and 0x16, as far as they are below last and
// KVM has left them empty, so that a guest without kvmclock need not measure.
// The crystal is 1 GHz, since that is what drives KVM's local APIC timer.
func (c CPUIDConfig) addTSCFrequency(entries []kvm.CPUIDEntry, last uint32) []kvm.CPUIDEntry {
	num, den := tscRatio(c.TSCKHz)
	mhz := (c.TSCKHz + 500) / 1000
	for _, e := range []kvm.CPUIDEntry{
		{Function: 0x15, Eax: den, Ebx: num, Ecx: crystalKHz * 1000},
		{Function: 0x16, Eax: mhz, Ebx: mhz},
	} {
		i := slices.IndexFunc(entries, func(o kvm.CPUIDEntry) bool { return o.Function == e.Function })
		switch {
		case e.Function > last:
		case i < 0:
			entries = append(entries, e)
		case entries[i].Eax == 0:
			entries[i] = e
		}
	}
	return entries
}

const crystalKHz = 1_000_000

// tscRatio is the fraction num/den nearest to kHz/crystalKHz of those for which
// crystalKHz * num fits 32 bits: Linux multiplies so, before it divides.
func tscRatio(kHz uint32) (num, den uint32) {
	best := math.Inf(1)
	want := float64(kHz) / crystalKHz
	for d := uint32(1); ; d++ {
		n := uint32(math.Round(want * float64(d)))
		if n > math.MaxUint32/crystalKHz {
			return num, den
		}
		if off := math.Abs(float64(n)/float64(d) - want); off < best {
			best, num, den = off, n, d
		}
	}
}
