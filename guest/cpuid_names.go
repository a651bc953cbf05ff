package guest

import (
	"fmt"
	"strings"

	"microvm/kvm"
)

// featureWord is a CPUID register whose bits are features.
type featureWord struct {
	leaf, index uint32
	reg         string
	// names has a field for each bit from 0 up, as Linux prints them in
	// /proc/cpuinfo where it does: "-" has no name here, "." says something
	// else than what the CPU can do.
	names string
}

var featureWords = []featureWord{
	{0x1, 0, "edx", `
		fpu vme de pse tsc msr pae mce
		cx8 apic - sep mtrr pge mca cmov
		pat pse36 pn clflush - dts acpi mmx
		fxsr sse sse2 ss . tm ia64 pbe`},
	{0x1, 0, "ecx", `
		pni pclmulqdq dtes64 monitor ds_cpl vmx smx est
		tm2 ssse3 cid sdbg fma cx16 xtpr pdcm
		- pcid dca sse4_1 sse4_2 x2apic movbe popcnt
		tsc_deadline_timer aes xsave . avx f16c rdrand hypervisor`},
	{0x6, 0, "eax", `
		. . arat . . . . .
		. . . . . . . .
		. . . . . . . .
		. . . . . . . .`},
	{0x7, 0, "ebx", `
		fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp_excptn_only smep
		bmi2 erms invpcid rtm cqm zero_fcs_fds mpx rdt_a
		avx512f avx512dq rdseed adx smap avx512ifma - clflushopt
		clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl`},
	{0x7, 0, "ecx", `
		prefetchwt1 avx512vbmi umip pku . waitpkg avx512_vbmi2 shstk
		gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme avx512_vpopcntdq -
		la57 . . . . . rdpid keylocker
		bus_lock_detect cldemote - movdiri movdir64b enqcmd sgx_lc pks`},
	{0x7, 0, "edx", `
		- sgx_keys avx512_4vnniw avx512_4fmaps fsrm uintr - -
		avx512_vp2intersect srbds_ctrl md_clear rtm_always_abort - tsx_force_abort serialize hybrid_cpu
		tsxldtrk - pconfig arch_lbr ibt - amx_bf16 avx512_fp16
		amx_tile amx_int8 spec_ctrl intel_stibp flush_l1d arch_capabilities core_capabilities spec_ctrl_ssbd`},
	{0x7, 1, "eax", `
		sha512 sm3 sm4 rao_int avx_vnni avx512_bf16 lass cmpccxadd
		arch_perfmon_ext - fzrm fsrs fsrc - - -
		- fred lkgs wrmsrns - amx_fp16 hreset avx_ifma
		- - lam msrlist - - - movrs`},
	{0x7, 1, "edx", `
		- - - - avx_vnni_int8 avx_ne_convert - -
		amx_complex - avx_vnni_int16 - - - prefetchiti user_msr
		- uiret_uif cet_sss avx10 - apx_f - -
		- - - - - - - -`},
	{0x7, 2, "edx", `
		intel_psfd ipred_ctrl rrsba_ctrl ddpd_u bhi_ctrl mcdt_no - -
		- - - - - - - -
		- - - - - - - -
		- - - - - - - -`},
	{0xD, 1, "eax", `
		xsaveopt xsavec xgetbv1 xsaves xfd - - -
		- - - - - - - -
		- - - - - - - -
		- - - - - - - -`},
	// Where AMD repeats leaf 1 here, leaf 1 is what counts.
	{0x8000_0001, 0, "edx", `
		. . . . . . . .
		. . - syscall . . . .
		. . - mp nx - mmxext .
		. fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow`},
	{0x8000_0001, 0, "ecx", `
		lahf_lm . svm extapic cr8_legacy abm sse4a misalignsse
		3dnowprefetch osvw ibs xop skinit wdt - lwp
		fma4 tce - nodeid_msr - tbm topoext perfctr_core
		perfctr_nb - bpext ptsc perfctr_llc mwaitx addr_mask_ext -`},
	{0x8000_0007, 0, "ebx", `
		overflow_recov succor - smca - - - -
		- - - - - - - -
		- - - - - - - -
		- - - - - - - -`},
	{0x8000_0007, 0, "edx", `
		ts fid vid ttp htc - 100mhzsteps hw_pstate
		invtsc cpb eff_freq_ro proc_feedback acc_power - - -
		- - - - - - - -
		- - - - - - - -`},
	{0x8000_0008, 0, "ebx", `
		clzero irperf xsaveerptr - rdpru - - -
		mcommit wbnoinvd - - amd_ibpb - amd_ibrs amd_stibp
		- amd_stibp_always_on - ibrs_same_mode - - - amd_ppin
		amd_ssbd virt_ssbd amd_ssb_no cppc amd_psfd btc_no ibpb_ret brs`},
	{0x8000_0021, 0, "eax", `
		no_nested_data_bp wrmsr_xx_base_ns lfence_rdtsc - - verw_clear null_sel_clr_base -
		autoibrs no_smm_ctl_msr - - - - - -
		- - - - prefetchi - - -
		- - - sbpb ibpb_brtype srso_no srso_user_kernel_no srso_bp_spec_reduce`},
	{0x8000_0021, 0, "ecx", `
		- tsa_sq_no tsa_l1_no - - - - -
		- - - - - - - -
		- - - - - - - -
		- - - - - - - -`},
	{0x4000_0001, 0, "eax", `
		kvm_clock kvm_nop_io_delay kvm_mmu_op kvm_clock2 kvm_async_pf kvm_steal_time kvm_pv_eoi kvm_pv_unhalt
		- kvm_pv_tlb_flush kvm_async_pf_vmexit kvm_pv_send_ipi kvm_poll_control kvm_pv_sched_yield kvm_async_pf_int kvm_msi_ext_dest_id
		kvm_hc_map_gpa_range kvm_migration_control - - - - - -
		kvm_clock_stable - - - - - - -`},
}

// missing names the bits that need has set and have has not.
func (w featureWord) missing(need, have uint32) []string {
	var out []string
	for bit, name := range strings.Fields(w.names) {
		if need>>bit&1 == 0 || have>>bit&1 == 1 || name == "." {
			continue
		}
		if name == "-" {
			name = fmt.Sprintf("cpuid %x.%x %s[%d]", w.leaf, w.index, w.reg, bit)
		}
		out = append(out, name)
	}
	return out
}

// of is the word's value in e.
func (w featureWord) of(e kvm.CPUIDEntry) uint32 {
	switch w.reg {
	case "eax":
		return e.Eax
	case "ebx":
		return e.Ebx
	case "ecx":
		return e.Ecx
	}
	return e.Edx
}
