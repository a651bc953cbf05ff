# The ways in which a run ends (end=, and crash after a PANIC line).

        .include "tiny.inc"

        .text
        .code64

# poweroff: ACPI S5, by the sleep control register or PM1a control.
        .globl  poweroff
poweroff:
        mov     sleep_type, %eax
        mov     sleep_control, %rdx
        test    %rdx, %rdx
        jz      2f
        shl     $2, %eax
        or      $0x20, %eax             # SLP_EN
        cmpb    $0, sleep_space
        jne     1f
        mov     %al, (%rdx)
        jmp     halt
1:      out     %al, %dx
        jmp     halt
2:      shl     $10, %eax
        or      $0x2000, %eax           # SLP_EN
        mov     pm1a_control, %edx
        out     %ax, %dx
        jmp     halt

# reboot: the keyboard controller pulls the reset line; where there is none, a triple fault does it half a second later.
        .globl  reboot
reboot:
        mov     $0xfe, %al
        out     %al, $0x64
        mov     $TICK_HZ / 2, %ecx
1:      hlt
        dec     %ecx
        jnz     1b

# triple_fault: an exception without an IDT.
        .globl  triple_fault
triple_fault:
        lidt    no_idt
        .globl  undefined_instruction
undefined_instruction:
        ud2

# crash: after a PANIC line: tell pvpanic (nobody listens where there is none), and stop.
        .globl  crash
crash:
        mov     $0x505, %edx
        mov     $1, %al                 # PVPANIC_PANICKED
        out     %al, %dx

# halt: this CPU, for good.
        .globl  halt
halt:
        cli
1:      hlt
        jmp     1b

        .section .rodata
no_idt: .word   0
        .quad   0
