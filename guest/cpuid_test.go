package guest

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"microvm/kvm"
)

func indexed(leaf, index, eax, ebx, ecx, edx uint32) kvm.CPUIDEntry {
	return kvm.CPUIDEntry{Function: leaf, Index: index, Flags: kvm.CPUIDSignificantIndex, Eax: eax, Ebx: ebx, Ecx: ecx, Edx: edx}
}

func plain(leaf, eax, ebx, ecx, edx uint32) kvm.CPUIDEntry {
	return kvm.CPUIDEntry{Function: leaf, Eax: eax, Ebx: ebx, Ecx: ecx, Edx: edx}
}

// intelSupported is what KVM might offer on an Intel host of 64 CPUs, and amd
// on an AMD host: every feature bit, a host's topology.
func intelSupported() []kvm.CPUIDEntry { return supportedBy(0x756E_6547, 0x4965_6E69, 0x6C65_746E) }
func amdSupported() []kvm.CPUIDEntry   { return supportedBy(0x6874_7541, 0x6974_6E65, 0x444D_4163) }

func supportedBy(b, d, c uint32) []kvm.CPUIDEntry {
	const all = 0xFFFF_FFFF
	return []kvm.CPUIDEntry{
		plain(0x0, 0x20, b, c, d),
		plain(0x1, 0xC06F2, 0x3F40_0800, all, all),
		indexed(0x4, 0, 63<<26|1<<14|1<<5|1, 0x02C0_003F, 0x3F, 0),
		indexed(0x4, 3, 63<<26|63<<14|3<<5|3, 0x04C0_003F, 0x3FFF, 0),
		indexed(0x4, 4, 0, 0, 0, 0),
		plain(0x5, 64, 64, 3, 0x11),
		plain(0x6, all, all, all, all),
		indexed(0x7, 0, 2, all, all, all),
		indexed(0x7, 1, all, all, all, all),
		plain(0xA, 0x0730_0802, 1, 2, 3),
		indexed(0xB, 0, 1, 2, 0x100, 17),
		indexed(0xD, 0, 0xE7, 0xA80, 0xA80, 0),
		indexed(0xD, 1, 0xF, 0xA80, 0x9900, 0),
		indexed(0xD, 2, 0x100, 0x240, 0, 0),
		indexed(0xD, 5, 0x40, 0x440, 0, 0),
		indexed(0xD, 6, 0x200, 0x480, 0, 0),
		indexed(0xD, 7, 0x400, 0x680, 0, 0),
		indexed(0x12, 0, all, all, all, all),
		indexed(0x14, 0, 1, all, all, 0),
		plain(0x15, 0, 0, 0, 0),
		indexed(0x1F, 0, 1, 2, 0x100, 17),
		plain(0x4000_0000, 0x4000_0001, 0x4B4D_564B, 0x564B_4D56, 0x4D),
		plain(0x4000_0001, 0x0100_7EFB, 0, 0, 0),
		plain(0x8000_0000, 0x8000_0021, 0, 0, 0),
		plain(0x8000_0001, 0, 0, all, all),
		plain(0x8000_0007, 0, 0, 0, 1<<8),
		plain(0x8000_0008, 48<<8|46, 1<<12, 0x603F, 0),
		plain(0x8000_000A, 1, 8, 0, all),
		indexed(0x8000_001D, 3, 63<<14|3<<5|3, 0, 0, 0),
		plain(0x8000_001E, 17, 0x0108, 0x0301, 0),
	}
}

// word is one register of the vCPU's CPUID.
func word(t *testing.T, es []kvm.CPUIDEntry, leaf, index uint32, reg string) uint32 {
	t.Helper()
	e, ok := findCPUID(es, leaf, index)
	if !ok {
		t.Errorf("no leaf %#x.%d", leaf, index)
	}
	return featureWord{reg: reg}.of(e)
}

func TestCPUIDTellsEachCPUItsPlace(t *testing.T) {
	for _, vendor := range []struct {
		name      string
		supported []kvm.CPUIDEntry
		amd       bool
	}{{"Intel", intelSupported(), false}, {"AMD", amdSupported(), true}} {
		for _, tt := range []struct {
			index, cpus int
			bits        uint32
		}{{0, 1, 0}, {1, 2, 1}, {2, 3, 2}, {3, 4, 2}, {31, 32, 5}} {
			t.Run(fmt.Sprintf("%s %d of %d", vendor.name, tt.index, tt.cpus), func(t *testing.T) {
				es := CPUID(vendor.supported, CPUIDConfig{Index: tt.index, CPUs: tt.cpus})
				id, n := uint32(tt.index), uint32(tt.cpus)
				check := func(leaf, index uint32, reg string, want uint32) {
					t.Helper()
					if got := word(t, es, leaf, index, reg); got != want {
						t.Errorf("leaf %#x.%d %s: %#x, want %#x", leaf, index, reg, got, want)
					}
				}
				check(1, 0, "ebx", id<<24|1<<tt.bits<<16|0x0800)
				if htt := word(t, es, 1, 0, "edx")&f1dHTT != 0; htt != (n > 1) {
					t.Errorf("HTT %v", htt)
				}
				ids := uint32(1)<<tt.bits - 1
				check(4, 0, "eax", ids<<26|1<<5|1)
				check(4, 3, "eax", ids<<26|ids<<14|3<<5|3)
				check(4, 4, "eax", 0)
				for _, leaf := range []uint32{0xB, 0x1F} {
					check(leaf, 0, "eax", 0)
					check(leaf, 0, "ebx", 1)
					check(leaf, 0, "ecx", 0x100)
					check(leaf, 1, "eax", tt.bits)
					check(leaf, 1, "ebx", n)
					check(leaf, 1, "ecx", 0x201)
					check(leaf, 2, "ecx", 2)
					for i := range uint32(3) {
						check(leaf, i, "edx", id)
					}
				}
				check(0x8000_001D, 3, "eax", ids<<14|3<<5|3)
				if vendor.amd {
					check(0x8000_0008, 0, "ecx", tt.bits<<12|(n-1))
					check(0x8000_001E, 0, "eax", id)
					check(0x8000_001E, 0, "ebx", id)
				} else {
					check(0x8000_0008, 0, "ecx", 0)
				}
				if legacy := word(t, es, 0x8000_0001, 0, "ecx")&fx1cCMPLegacy != 0; legacy != (vendor.amd && n > 1) {
					t.Errorf("CMP_LEGACY %v", legacy)
				}
			})
		}
	}
}

func TestCPUIDHidesWhatTheMachineDoesNotHave(t *testing.T) {
	supported := intelSupported()
	before := slices.Clone(supported)
	es := CPUID(supported, CPUIDConfig{CPUs: 2, TSCDeadline: true})
	if !slices.Equal(supported, before) {
		t.Error("the supported set was changed")
	}
	for _, leaf := range hiddenLeaves {
		if _, ok := findCPUID(es, leaf, 0); ok {
			t.Errorf("leaf %#x is there", leaf)
		}
	}
	names := strings.Join(CompareCPUID(supported, es), " ")
	for _, gone := range []string{"monitor", "vmx", "smx", "pdcm", "ds_cpl", "sgx", "sgx_lc", "intel_pt", "arch_lbr", "svm", "ibs", "perfctr_core"} {
		if !strings.Contains(" "+names+" ", " "+gone+" ") {
			t.Errorf("%s is still there (gone: %s)", gone, names)
		}
	}
	for _, kept := range []string{"avx512f", "aes", "x2apic", "pcid", "arch_capabilities", "kvm_clock", "invtsc", "arat", "shstk", "avx2"} {
		if strings.Contains(" "+names+" ", " "+kept+" ") {
			t.Errorf("%s is gone", kept)
		}
	}
	const own = f1cHypervisor | f1cX2APIC | f1cTSCDeadline
	if got := word(t, es, 1, 0, "ecx"); got&own != own || got&f1cOSXSAVE != 0 {
		t.Errorf("leaf 1 ecx %#x", got)
	}
	without := CPUID(supported, CPUIDConfig{CPUs: 2})
	if got := word(t, without, 1, 0, "ecx"); got&f1cTSCDeadline != 0 {
		t.Errorf("leaf 1 ecx %#x: a TSC deadline timer that KVM does not have", got)
	}
	if got := word(t, es, 0x4000_0001, 0, "eax"); got != 0x0100_7EFB {
		t.Errorf("KVM features %#x", got)
	}
}

func TestCPUIDGivesAnIntelGuestItsTSCFrequency(t *testing.T) {
	for _, kHz := range []uint32{800_000, 1_999_999, 2_100_000, 2_399_998, 2_893_437, 3_700_012, 5_799_999} {
		es := CPUID(intelSupported(), CPUIDConfig{CPUs: 1, TSCKHz: kHz})
		e, _ := findCPUID(es, 0x15, 0)
		if e.Ecx != 1_000_000_000 || uint64(e.Ebx)*crystalKHz > math.MaxUint32 {
			t.Errorf("%d kHz: %d/%d of %d Hz", kHz, e.Ebx, e.Eax, e.Ecx)
		}
		got := float64(e.Ecx) / 1000 * float64(e.Ebx) / float64(e.Eax)
		if off := math.Abs(got-float64(kHz)) / float64(kHz); off > 5e-6 {
			t.Errorf("%d kHz: the guest computes %f: %g off", kHz, got, off)
		}
		if mhz := word(t, es, 0x16, 0, "eax"); mhz != (kHz+500)/1000 {
			t.Errorf("%d kHz: base frequency %d MHz", kHz, mhz)
		}
	}
	own := intelSupported()
	for i := range own {
		if own[i].Function == 0x15 {
			own[i] = plain(0x15, 2, 188, 24_000_000, 0)
		}
	}
	if got := word(t, CPUID(own, CPUIDConfig{CPUs: 1, TSCKHz: 2_256_000}), 0x15, 0, "ebx"); got != 188 {
		t.Errorf("KVM's own leaf 0x15 was replaced: %d", got)
	}
	old := intelSupported()
	old[0].Eax = 0xD
	es := CPUID(old, CPUIDConfig{CPUs: 1, TSCKHz: 2_256_000})
	if e, _ := findCPUID(es, 0x15, 0); e.Eax != 0 {
		t.Errorf("leaf 0x15 above the CPU's last: %+v", e)
	}
	if _, ok := findCPUID(es, 0x1F, 0); ok {
		t.Error("leaf 0x1F above the CPU's last")
	}
	if e, _ := findCPUID(CPUID(amdSupported(), CPUIDConfig{CPUs: 1, TSCKHz: 2_256_000}), 0x15, 0); e.Eax != 0 {
		t.Errorf("leaf 0x15 on AMD: %+v", e)
	}
}

func TestCompareCPUIDNamesWhatIsMissing(t *testing.T) {
	set := func(leaf, index uint32, f func(e *kvm.CPUIDEntry)) func([]kvm.CPUIDEntry) []kvm.CPUIDEntry {
		return func(es []kvm.CPUIDEntry) []kvm.CPUIDEntry {
			for i := range es {
				if es[i].Function == leaf && es[i].Index == index {
					f(&es[i])
				}
			}
			return es
		}
	}
	tests := []struct {
		name string
		have func([]kvm.CPUIDEntry) []kvm.CPUIDEntry
		want []string
	}{
		{"the same", set(0, 0, func(e *kvm.CPUIDEntry) {}), nil},
		{"avx512f", set(7, 0, func(e *kvm.CPUIDEntry) { e.Ebx &^= 1 << 16 }), []string{"avx512f"}},
		{"two words", func(es []kvm.CPUIDEntry) []kvm.CPUIDEntry {
			es = set(1, 0, func(e *kvm.CPUIDEntry) { e.Ecx &^= 1<<25 | 1<<21 })(es)
			return set(0x4000_0001, 0, func(e *kvm.CPUIDEntry) { e.Eax &^= 1 << 5 })(es)
		}, []string{"x2apic", "aes", "kvm_steal_time"}},
		{"no name", set(7, 1, func(e *kvm.CPUIDEntry) { e.Eax &^= 1 << 25 }), []string{"cpuid 7.1 eax[25]"}},
		{"a whole leaf", func(es []kvm.CPUIDEntry) []kvm.CPUIDEntry {
			return slices.DeleteFunc(es, func(e kvm.CPUIDEntry) bool { return e.Function == 0x8000_0007 })
		}, []string{"invtsc"}},
		{"another stepping", set(1, 0, func(e *kvm.CPUIDEntry) { e.Eax = 0x50657 }), nil},
		{"OSXSAVE of a running guest", set(1, 0, func(e *kvm.CPUIDEntry) { e.Ecx |= f1cOSXSAVE }), nil},
		{"more there", set(0x40000001, 0, func(e *kvm.CPUIDEntry) { e.Eax |= 1 << 17 }), nil},
		{"vendor", set(0, 0, func(e *kvm.CPUIDEntry) { e.Ebx, e.Edx, e.Ecx = 0x6874_7541, 0x6974_6E65, 0x444D_4163 }),
			[]string{"CPU vendor GenuineIntel (here AuthenticAMD)"}},
		{"xsave component", set(0xD, 0, func(e *kvm.CPUIDEntry) { e.Eax &^= 1 << 5 }), []string{"xsave component 5 (avx512 opmask)"}},
		{"xsave layout", set(0xD, 7, func(e *kvm.CPUIDEntry) { e.Ebx = 0x700 }),
			[]string{"xsave component 7 (avx512 hi16_zmm) of 1024 bytes at offset 1664 (here 1024 at 1792)"}},
		{"address width", set(0x8000_0008, 0, func(e *kvm.CPUIDEntry) { e.Eax = 48<<8 | 39 }),
			[]string{"46-bit physical addresses (here 39-bit)"}},
		{"wider addresses", set(0x8000_0008, 0, func(e *kvm.CPUIDEntry) { e.Eax = 57<<8 | 52 }), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			need := CPUID(intelSupported(), CPUIDConfig{Index: 1, CPUs: 2})
			have := tt.have(CPUID(intelSupported(), CPUIDConfig{Index: 1, CPUs: 2}))
			if got := CompareCPUID(need, have); !slices.Equal(got, tt.want) {
				t.Errorf("missing %q, want %q", got, tt.want)
			}
		})
	}
}

func TestEveryFeatureBitHasAField(t *testing.T) {
	seen := map[string]string{}
	for _, w := range featureWords {
		fields := strings.Fields(w.names)
		where := fmt.Sprintf("%#x.%d %s", w.leaf, w.index, w.reg)
		if len(fields) != 32 {
			t.Errorf("%s: %d fields", where, len(fields))
		}
		for _, name := range fields {
			if len(name) > 1 && seen[name] != "" {
				t.Errorf("%s is in %s and in %s", name, seen[name], where)
			}
			seen[name] = where
		}
	}
}

// TestCPUIDOfAnotherCPU: a destination makes what each vCPU was told of what one
// was.
func TestCPUIDOfAnotherCPU(t *testing.T) {
	for _, supported := range [][]kvm.CPUIDEntry{intelSupported(), amdSupported()} {
		c := CPUIDConfig{CPUs: 6, TSCKHz: 2_256_000}
		first := CPUID(supported, c)
		for c.Index = range c.CPUs {
			if got, want := CPUIDOf(c.Index, first), CPUID(supported, c); !slices.Equal(got, want) {
				t.Errorf("%s, vCPU %d:\ngot  %+v\nwant %+v", cpuVendor(supported), c.Index, got, want)
			}
		}
		if again := CPUID(supported, CPUIDConfig{CPUs: 6, TSCKHz: 2_256_000}); !slices.Equal(first, again) {
			t.Errorf("%s: making the others changed the first", cpuVendor(supported))
		}
	}
}
