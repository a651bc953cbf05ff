# What ACPI tells us: the processors (MADT) and the way to power off (FADT, \_S5 in the DSDT).

        .include "tiny.inc"

        .text
        .code64

# read_acpi: fill cpu_ids and cpu_count, and the power-off registers; without ACPI, cpus= counts from APIC id 0.
        .globl  read_acpi
read_acpi:
        mov     start_info, %rbx
        mov     START_RSDP(%rbx), %rbx
        test    %rbx, %rbx
        jz      no_madt
        mov     $4, %r9d                # bytes of an entry in the root table
        mov     16(%rbx), %r8d          # RSDT
        cmpb    $2, 15(%rbx)            # RSDP revision
        jb      1f
        cmpq    $0, 24(%rbx)
        je      1f
        mov     24(%rbx), %r8           # XSDT
        mov     $8, %r9d
1:      mov     4(%r8), %r10d           # its length
        add     %r8, %r10
        add     $36, %r8
next_table:
        lea     (%r8,%r9), %rax
        cmp     %r10, %rax
        ja      4f
        mov     (%r8), %ebx
        cmp     $4, %r9d
        je      3f
        mov     (%r8), %rbx
3:      add     %r9, %r8
        mov     (%rbx), %eax
        cmp     $0x43495041, %eax       # "APIC"
        je      madt
        cmp     $0x50434146, %eax       # "FACP"
        je      fadt
        jmp     next_table
4:      cmpl    $0, cpu_count
        je      no_madt
        mov     param_cpus, %rax        # cpus= may ask for fewer
        test    %rax, %rax
        jz      5f
        cmp     %rax, cpu_count
        jbe     5f
        mov     %rax, cpu_count
5:      ret

no_madt:
        mov     param_cpus, %rcx
        test    %rcx, %rcx
        jnz     1f
        inc     %ecx
1:      cmp     $MAX_CPUS, %ecx
        jbe     2f
        mov     $MAX_CPUS, %ecx
2:      mov     %rcx, cpu_count
3:      dec     %ecx
        mov     %ecx, cpu_ids(,%rcx,4)
        jnz     3b
        ret

# The MADT at rbx: entries of type 0 (local APIC) and 9 (local x2APIC), when enabled.
madt:
        mov     4(%rbx), %edi
        add     %rbx, %rdi
        add     $44, %rbx
1:      cmp     %rdi, %rbx
        jae     next_table
        movzbl  1(%rbx), %edx           # length
        cmpb    $0, (%rbx)
        jne     2f
        movzbl  3(%rbx), %eax
        testb   $1, 4(%rbx)
        jnz     3f
        jmp     4f
2:      cmpb    $9, (%rbx)
        jne     4f
        mov     4(%rbx), %eax
        testb   $1, 8(%rbx)
        jz      4f
3:      mov     cpu_count, %ecx
        cmp     $MAX_CPUS, %ecx
        jae     4f
        mov     %eax, cpu_ids(,%rcx,4)
        incl    cpu_count
4:      add     %rdx, %rbx
        test    %edx, %edx
        jnz     1b
        jmp     next_table

# The FADT at rbx: PM1a control, or the sleep control register of hardware-reduced ACPI, and from the DSDT the
# sleep type of S5.
fadt:
        mov     64(%rbx), %eax
        mov     %eax, pm1a_control
        cmpl    $256, 4(%rbx)           # long enough to have the sleep control register
        jb      1f
        testl   $1 << 20, 112(%rbx)     # HW_REDUCED_ACPI
        jz      1f
        mov     244(%rbx), %al
        mov     %al, sleep_space
        mov     248(%rbx), %rax
        mov     %rax, sleep_control
1:      mov     40(%rbx), %edi          # DSDT
        cmpl    $148, 4(%rbx)
        jb      2f
        cmpq    $0, 140(%rbx)
        je      2f
        mov     140(%rbx), %rdi         # X_DSDT
2:      test    %rdi, %rdi
        jz      next_table
        mov     4(%rdi), %ecx
        sub     $36 + 12, %ecx
        jbe     next_table
        add     $36, %rdi
3:      cmpl    $0x5f35535f, (%rdi)     # "_S5_", then PackageOp, a one-byte length, a count, the first element
        je      4f
        inc     %rdi
        dec     %ecx
        jnz     3b
        jmp     next_table
4:      cmpb    $0x12, 4(%rdi)
        jne     next_table
        movzbl  7(%rdi), %eax
        cmp     $0x0a, %al              # BytePrefix; else ZeroOp or OneOp, which are their own value
        jne     5f
        movzbl  8(%rdi), %eax
5:      and     $7, %eax
        mov     %eax, sleep_type
        jmp     next_table

        .data
        .balign 8
        .globl  cpu_count, sleep_control, sleep_space, pm1a_control, sleep_type
cpu_count:
        .quad   0
sleep_control:
        .quad   0                       # 0: not hardware-reduced
pm1a_control:
        .long   0x604
sleep_type:
        .long   5
sleep_space:
        .byte   0                       # of sleep_control: 0 memory, 1 port

        .bss
        .balign 4
        .globl  cpu_ids
cpu_ids:
        .skip   MAX_CPUS * 4            # APIC ids
