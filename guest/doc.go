// Package guest makes what a guest sees at power-on: the physical memory map,
// a loaded kernel with its initramfs and command line, ACPI tables, CPUID, and
// the boot CPU's registers.
//
// Three kinds of kernel are loaded, as their users have them:
//
//	bzImage            Linux x86 boot protocol 2.12 or later, entered in long
//	                   mode at load address + 0x200 with a zero page in RSI
//	ELF with PVH note  entered in 32-bit protected mode, paging off, with an
//	                   hvm_start_info in EBX (preferred whenever the note is there)
//	ELF64 vmlinux      entered in long mode at e_entry with a zero page in RSI
//
// Guest-physical memory, from the bottom:
//
//	0x0000_0400  BIOS data area: COM1's port, base memory, EBDA segment
//	0x0000_0500  boot GDT
//	0x0000_6000  hvm_start_info, its module list, its memory map (PVH)
//	0x0000_7000  zero page (Linux boot protocol)
//	0x0000_9000  boot page tables: PML4, PDPT, four page directories (to 0xF000)
//	0x0002_0000  command line
//	0x0009_FC00  EBDA, reserved
//	0x000A_0000  in no E820 entry
//	0x000E_0000  ACPI: RSDP, FACS, DSDT, FADT, MADT, XSDT; reserved
//	0x000F_F000  VM generation ID; reserved
//	0x0010_0000  kernel where it asks to be; initramfs as high as it may go
//	0xC000_0000  end of low RAM at the latest (LowRAMEnd)
//	0xD000_0000  virtio-mmio devices, 4 KiB each (MMIOBase)
//	0xFEC0_0000  IOAPIC
//	0xFEE0_0000  local APICs
//	0xFEFF_C000  KVM's identity-map page, then its three TSS pages; reserved
//	0x1_0000_0000  RAM beyond 3 GiB (HighRAMBase)
//
// Kernel and initramfs files are a stranger's: every offset and size in them
// is checked against the file and against guest RAM before it is used, and
// they are copied through a buffer of fixed size, whatever they claim.
//
// Sources: Documentation/arch/x86/boot.rst and zero-page.rst (boot protocol),
// Xen's public/arch-x86/hvm/start_info.h (PVH), ACPI 6.5, Intel SDM volume 2A
// and AMD APM volume 3 (CPUID), Documentation/virt/kvm/x86/cpuid.rst (KVM's
// leaves).
package guest
