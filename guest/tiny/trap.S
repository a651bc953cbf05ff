# Interrupts: the timer's tick, and exceptions, which are printed and end the run.

        .include "tiny.inc"

.set EXCEPTIONS,     32
.set STUB_SIZE,      16

        .text
        .code64

# build_idt: exceptions to their stubs, the timer, everything else ignored.
        .globl  build_idt, load_idt
build_idt:
        xor     %ebx, %ebx
        mov     $exception_stubs, %eax
1:      call    set_gate
        add     $STUB_SIZE, %eax
        inc     %ebx
        cmp     $EXCEPTIONS, %ebx
        jne     1b
        mov     $unexpected_interrupt, %eax
2:      call    set_gate
        inc     %ebx
        cmp     $256, %ebx
        jne     2b
        mov     $VECTOR_TIMER, %ebx
        mov     $timer_interrupt, %eax
        call    set_gate
        mov     $VECTOR_SPURIOUS, %ebx
        mov     $spurious_interrupt, %eax
        call    set_gate
load_idt:
        lidt    idt_pointer
        ret

# set_gate: vector ebx goes to the handler at eax. Clobbers rcx, rdx.
set_gate:
        mov     %ebx, %ecx
        shl     $4, %ecx
        mov     %eax, %edx
        and     $0xffff, %edx
        or      $CODE64 << 16, %edx
        mov     %edx, idt(%rcx)
        mov     %eax, %edx
        and     $0xffff0000, %edx
        or      $0x8e00, %edx           # present, interrupt gate
        mov     %edx, idt + 4(%rcx)
        movq    $0, idt + 8(%rcx)
        ret

timer_interrupt:
        push    %rax
        push    %rcx
        push    %rdx
        mov     %rsp, %rax              # our area: the stack is its far end
        and     $-CPU_SIZE, %rax
        incl    CPU_TICKS(%rax)
1:      call    apic_eoi
        pop     %rdx
        pop     %rcx
        pop     %rax
spurious_interrupt:
        iretq

unexpected_interrupt:
        push    %rax
        push    %rcx
        push    %rdx
        jmp     1b

# One stub for each exception: push 0 where the CPU pushed no error code, then the vector.
        .balign STUB_SIZE
exception_stubs:
.set vector, 0
.rept EXCEPTIONS
        .balign STUB_SIZE
        .if ((1 << vector) & 0x60227d00) == 0   # 8, 10-14, 17, 21, 29, 30 have one
        push    $0
        .endif
        push    $vector
        jmp     exception
        .set vector, vector + 1
.endr

# On the stack: vector, error code, rip, cs, rflags, rsp, ss.
exception:
        mov     %rsp, %rbx
        and     $-CPU_SIZE, %rsp        # whose area
        mov     CPU_INDEX(%rsp), %r12
        mov     %rbx, %rsp
        say     "\r\nPANIC cpu "
        mov     %r12, %rax
        call    put_decimal
        say     " vector "
        mov     (%rbx), %rax
        call    put_decimal
        say     " error "
        mov     8(%rbx), %rax
        call    put_hex
        say     " rip "
        mov     16(%rbx), %rax
        call    put_hex
        say     " rsp "
        mov     40(%rbx), %rax
        call    put_hex
        say     " cr2 "
        mov     %cr2, %rax
        call    put_hex
        say     "\r\n"
        jmp     crash

        .section .rodata
idt_pointer:
        .word   256 * 16 - 1
        .quad   idt

        .bss
        .balign 16
idt:    .skip   256 * 16
