# The command line: words of the form name=value. doc.go says what each one means.

        .include "tiny.inc"

# param name, variable, how: `how` is 0 for a decimal number, 1 for a size in MiB (an M or a G may follow),
# otherwise the list of words that are allowed.
.macro param name, variable, how
        .ascii  "\name"
        .balign 8, 0
        .quad   \variable, \how
.endm
.macro choice name, value
        .ascii  "\name"
        .balign 8, 0
        .quad   \value
.endm
.set NUMBER,         0
.set SIZE,           1

        .section .rodata
        .balign 8
params:
        param   "cpus",  param_cpus,  NUMBER
        param   "mem",   param_mem,   SIZE
        param   "span",  param_span,  SIZE
        param   "fill",  param_fill,  fills
        param   "work",  param_work,  works
        param   "order", param_order, orders
        param   "check", param_check, switches
        param   "sweep", param_sweep, switches
        param   "rate",  param_rate,  NUMBER
        param   "beat",  param_beat,  NUMBER
        param   "stop",  param_stop,  NUMBER
        param   "end",   param_end,   ends
        .quad   0
fills:  choice  "full", 2
switches:
        choice  "0", 0
        choice  "1", 1
        .quad   0
        .globl  works, orders
works:  choice  "idle", 0
        choice  "touch", 1
        choice  "write", 2
        .quad   0
orders: choice  "seq", 0
        choice  "rand", 1
        choice  "down", 2
        choice  "stride", 3
        .quad   0
ends:   choice  "poweroff", poweroff
        choice  "reboot", reboot
        choice  "triple", triple_fault
        choice  "panic", undefined_instruction
        choice  "halt", halt
        .quad   0

        .data
        .balign 8
        .globl  param_cpus, param_mem, param_span, param_fill, param_work, param_order, param_check, param_sweep
        .globl  param_rate, param_beat, param_stop, param_end
param_cpus:  .quad 0                    # 0: all that there are
param_mem:   .quad 0                    # MiB; 0: all
param_span:  .quad 0                    # MiB; 0: as mem
param_fill:  .quad 0
param_work:  .quad 0
param_order: .quad 0
param_check: .quad 0
param_sweep: .quad 0
param_rate:  .quad 0                    # pages a second on each CPU; 0: no limit
param_beat:  .quad 1000                 # ms
param_stop:  .quad 0                    # beats; 0: never
param_end:   .quad poweroff

        .text
        .code64

# parse_params: read the command line at rsi (0: there is none).
        .globl  parse_params
parse_params:
        test    %rsi, %rsi
        jz      9f
next_param:
        mov     (%rsi), %al
        test    %al, %al
        jz      9f
        inc     %rsi
        cmp     $' ', %al
        je      next_param
        dec     %rsi
        mov     %rsi, %r8               # where the word starts
        call    read_word
        cmp     $'=', %dl
        jne     bad_param
        inc     %rsi
        mov     $params, %edi
1:      mov     (%rdi), %rcx
        test    %rcx, %rcx
        jz      bad_param
        cmp     %rcx, %rax
        je      2f
        add     $24, %rdi
        jmp     1b
2:      mov     8(%rdi), %r9            # the variable
        mov     16(%rdi), %rdi          # how to read it
        cmp     $SIZE, %rdi
        jbe     read_number

        call    read_word               # one of a list
        test    %rax, %rax
        jz      bad_param
1:      mov     (%rdi), %rcx
        test    %rcx, %rcx
        jz      bad_param
        cmp     %rcx, %rax
        je      2f
        add     $16, %rdi
        jmp     1b
2:      mov     8(%rdi), %rax
        jmp     set_param

read_number:
        xor     %eax, %eax
        xor     %r10d, %r10d            # digits
1:      movzbl  (%rsi), %edx
        sub     $'0', %edx
        cmp     $9, %edx
        ja      2f
        cmp     $9, %r10d               # up to nine digits: nothing overflows
        jae     bad_param
        imul    $10, %rax, %rax
        add     %rdx, %rax
        inc     %r10d
        inc     %rsi
        jmp     1b
2:      test    %r10d, %r10d
        jz      bad_param
        movzbl  (%rsi), %edx
        cmp     $SIZE, %rdi
        jne     4f
        cmp     $'M', %dl
        je      3f
        cmp     $'G', %dl
        jne     4f
        shl     $10, %rax
3:      inc     %rsi
        movzbl  (%rsi), %edx
4:      test    %dl, %dl
        jz      set_param
        cmp     $' ', %dl
        jne     bad_param
set_param:
        mov     %rax, (%r9)
        jmp     next_param

# Say so and go on: a misspelt parameter must not pass for a test that ran.
bad_param:
        call    begin_line
        say     "tiny: ignored: "
        mov     %r8, %rsi
1:      mov     (%rsi), %al
        test    %al, %al
        jz      2f
        cmp     $' ', %al
        je      2f
        call    putc
        inc     %rsi
        jmp     1b
2:      mov     %rsi, %r8
        call    end_line
        mov     %r8, %rsi
        jmp     next_param
9:      ret

# read_word: the letters at rsi up to '=', ' ' or the end, as up to 8 bytes in rax (0 if more), the delimiter in dl;
# rsi is left at the delimiter. Clobbers rcx.
read_word:
        xor     %ecx, %ecx
        movq    $0, word
1:      movzbl  (%rsi), %edx
        test    %dl, %dl
        jz      2f
        cmp     $'=', %dl
        je      2f
        cmp     $' ', %dl
        je      2f
        mov     %dl, word(%rcx)
        inc     %ecx
        inc     %rsi
        cmp     $8, %ecx
        jbe     1b
        movq    $0, word                # too long: matches nothing
        mov     $8, %ecx
        jmp     1b
2:      mov     word, %rax
        ret

        .bss
        .balign 8
word:   .skip   16
