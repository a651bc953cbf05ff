# The local APIC: x2APIC by MSR where the CPU has it, else memory-mapped; the timer; starting the other CPUs.

        .include "tiny.inc"

# Register offsets of the memory-mapped form; the MSR is 0x800 + offset/16.
.set APIC_MMIO,      0xfee00000
.set APIC_ID,        0x20
.set APIC_EOI,       0xb0
.set APIC_SPURIOUS,  0xf0
.set APIC_COMMAND,   0x300
.set APIC_TARGET,    0x310
.set APIC_TIMER,     0x320
.set APIC_LINT0,     0x350
.set APIC_COUNT,     0x380
.set APIC_DIVIDE,    0x3e0

.set TIMER_HZ,       1000000000         # KVM and QEMU count nanoseconds

        .text
        .code64

# apic_write: write eax to register ecx. Clobbers rcx, rdx.
apic_write:
        cmpl    $0, have_x2apic
        je      1f
        shr     $4, %ecx
        add     $0x800, %ecx
        xor     %edx, %edx
        wrmsr
        ret
1:      mov     $APIC_MMIO, %edx
        mov     %eax, (%rdx,%rcx)
        ret

# apic_eoi: end of interrupt. Clobbers rax, rcx, rdx.
        .globl  apic_eoi
apic_eoi:
        xor     %eax, %eax
        mov     $APIC_EOI, %ecx
        jmp     apic_write

# apic_init: switch this CPU's APIC on and start its timer.
        .globl  apic_init
apic_init:
        mov     $1, %eax
        cpuid
        xor     %esi, %esi
        bt      $21, %ecx
        adc     $0, %esi
        mov     %esi, have_x2apic
        mov     $0x1b, %ecx             # IA32_APIC_BASE
        rdmsr
        or      $1 << 11, %eax          # enabled
        shl     $10, %esi
        or      %esi, %eax              # x2APIC
        wrmsr
        mov     $0x100 + VECTOR_SPURIOUS, %eax
        mov     $APIC_SPURIOUS, %ecx
        call    apic_write
        mov     $1 << 16, %eax          # no interrupts from the old PIC
        mov     $APIC_LINT0, %ecx
        call    apic_write
        mov     $0xb, %eax              # divide by 1
        mov     $APIC_DIVIDE, %ecx
        call    apic_write
        mov     $1 << 17 | VECTOR_TIMER, %eax   # periodic
        mov     $APIC_TIMER, %ecx
        call    apic_write
        mov     $TIMER_HZ / TICK_HZ, %eax
        mov     $APIC_COUNT, %ecx
        jmp     apic_write

# apic_id: this CPU's id in eax. Clobbers rcx, rdx.
apic_id:
        cmpl    $0, have_x2apic
        je      1f
        mov     $0x800 + APIC_ID / 16, %ecx
        rdmsr
        ret
1:      mov     $APIC_MMIO + APIC_ID, %edx
        mov     (%rdx), %eax
        shr     $24, %eax
        ret

# send_ipi: interrupt command eax to the CPU with APIC id edi. Clobbers rax, rcx, rdx.
send_ipi:
        cmpl    $0, have_x2apic
        je      1f
        mov     $0x800 + APIC_COMMAND / 16, %ecx
        mov     %edi, %edx
        wrmsr
        ret
1:      mov     $APIC_MMIO, %edx
        mov     %edi, %ecx
        shl     $24, %ecx
        mov     %ecx, APIC_TARGET(%rdx)
        mov     %eax, APIC_COMMAND(%rdx)
        ret

# start_cpus: one after the other, each by INIT and SIPI; a CPU which does not answer stops us.
        .globl  start_cpus
start_cpus:
        mov     $trampoline, %esi
        mov     $TRAMPOLINE, %edi
        mov     $trampoline_end, %ecx
        sub     %esi, %ecx
        rep movsb
        call    apic_id
        mov     %eax, %r12d             # ourselves
        xor     %ebx, %ebx              # position in cpu_ids
        mov     $1, %r13d               # index of the next CPU
1:      cmp     cpu_count, %ebx
        jae     5f
        mov     cpu_ids(,%rbx,4), %edi
        inc     %ebx
        cmp     %r12d, %edi
        je      1b
        cmp     cpu_count, %r13d        # cpus= left us out: it may count one that is not ours
        jae     5f
        mov     %r13d, %r14d
        shl     $12, %r14
        add     $cpus_area, %r14
        mov     %r13, CPU_INDEX(%r14)
        mov     %r14, starting_cpu
        mov     $0x4500, %eax           # INIT
        call    send_ipi
        mov     $5, %r15d               # tries
2:      mov     $0x4600 | TRAMPOLINE >> 12, %eax        # startup
        call    send_ipi
        mov     CPU_TICKS(%rbp), %eax   # up to half a second for each
        add     $TICK_HZ / 2, %eax
3:      cmpl    $PHASE_ONLINE, CPU_DONE(%r14)
        je      4f
        pause
        mov     CPU_TICKS(%rbp), %ecx
        sub     %eax, %ecx
        js      3b
        dec     %r15d
        jnz     2b
        say     "PANIC no answer from the CPU with APIC id "
        mov     %edi, %eax
        call    put_decimal
        say     "\r\n"
        jmp     crash
4:      inc     %r13d
        jmp     1b
5:      ret

        .bss
        .balign 4
have_x2apic:
        .long   0
