# From the loader's hands to 64-bit mode: the PVH entry of the boot CPU, and the real-mode entry of the others.

        .include "tiny.inc"

# The ELF note that makes this a PVH kernel: owner "Xen", type 18 (XEN_ELFNOTE_PHYS32_ENTRY), the entry's address.
        .section .note.Xen, "a", @note
        .balign 4
        .long   2f - 1f, 4f - 3f, 18
1:      .asciz  "Xen"
2:      .balign 4
3:      .quad   pvh_entry
4:      .balign 4

# The boot CPU arrives in 32-bit protected mode, paging off, ebx = struct hvm_start_info.
        .text
        .code32
        .globl  pvh_entry
pvh_entry:
        cli
        cld
        mov     %ebx, start_info
        lgdt    gdt_pointer
        ljmp    $CODE32, $1f
1:      mov     $DATA, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss

        # Page tables. With 1 GiB pages one page directory pointer table maps 512 GiB and we are done; without,
        # the first 4 GiB by 2 MiB pages here, the rest in map_high once addresses are 64 bits wide.
        movl    $pdpt + 3, pml4
        mov     $0x80000000, %eax
        cpuid
        cmp     $0x80000001, %eax
        jb      small_pages
        mov     $0x80000001, %eax
        cpuid
        test    $1 << 26, %edx
        jz      small_pages

        mov     $0x83, %eax             # present, writable, large
        xor     %edx, %edx
        xor     %ecx, %ecx
1:      mov     %eax, pdpt(,%ecx,8)
        mov     %edx, pdpt + 4(,%ecx,8)
        add     $0x40000000, %eax
        adc     $0, %edx
        inc     %ecx
        cmp     $512, %ecx
        jne     1b
        movl    $1, have_1g_pages
        jmp     enter_long_mode

small_pages:
        movl    $pd_low + 0x0003, pdpt
        movl    $pd_low + 0x1003, pdpt + 8
        movl    $pd_low + 0x2003, pdpt + 16
        movl    $pd_low + 0x3003, pdpt + 24
        mov     $0x83, %eax
        xor     %ecx, %ecx
1:      mov     %eax, pd_low(,%ecx,8)
        add     $0x200000, %eax
        inc     %ecx
        cmp     $4 * 512, %ecx
        jne     1b
        jmp     enter_long_mode

# Every other CPU comes here from the trampoline, in 32-bit protected mode with our GDT.
other_cpu_32:
        mov     $DATA, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss

enter_long_mode:
        mov     $1 << 5, %eax           # CR4.PAE
        mov     %eax, %cr4
        mov     $pml4, %eax
        mov     %eax, %cr3
        mov     $0xc0000080, %ecx       # EFER
        rdmsr
        or      $1 << 8, %eax           # LME
        wrmsr
        mov     $0x80000031, %eax       # CR0: PG, NE, ET, PE; caches on
        mov     %eax, %cr0
        ljmp    $CODE64, $long_mode

        .code64
long_mode:
        xor     %eax, %eax
        mov     %eax, %fs
        mov     %eax, %gs
        mov     starting_cpu, %rbp
        lea     CPU_SIZE(%rbp), %rsp
        cmpq    $0, CPU_INDEX(%rbp)
        je      boot_cpu_main
        jmp     other_cpu_main

# Copied to TRAMPOLINE; a startup IPI begins here in real mode with cs = TRAMPOLINE/16, ip = 0.
        .code16
        .globl  trampoline, trampoline_end
trampoline:
        cli
        lgdtl   %cs:trampoline_gdt - trampoline
        mov     %cr0, %eax
        or      $1, %al
        mov     %eax, %cr0
        ljmpl   $CODE32, $other_cpu_32
        .balign 4
trampoline_gdt:
        .word   gdt_end - gdt - 1
        .long   gdt
trampoline_end:

        .section .rodata
        .balign 8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff      # CODE32
        .quad   0x00cf93000000ffff      # DATA
        .quad   0x00af9b000000ffff      # CODE64
gdt_end:
gdt_pointer:
        .word   gdt_end - gdt - 1
        .long   gdt

        .data
        .balign 8
        .globl  starting_cpu
starting_cpu:                           # the area of the CPU that is about to enter long mode
        .quad   cpus_area

        .bss
        .balign 4096
        .globl  pdpt, start_info, have_1g_pages, cpus_area
pml4:   .skip   4096
pdpt:   .skip   4096
pd_low: .skip   4 * 4096
cpus_area:
        .skip   MAX_CPUS * CPU_SIZE
start_info:
        .quad   0
have_1g_pages:
        .long   0
