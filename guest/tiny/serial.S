# The serial port (16550A at 0x3F8, polled), printing, and the echo of what is typed.

        .include "tiny.inc"

.set COM1,           0x3f8
.set LSR,            COM1 + 5           # line status: bit 0 data ready, bit 5 transmitter empty
.set LINE_MAX,       255                # longer input lines are cut

        .text
        .code64

        .globl  serial_init
serial_init:
        mov     $COM1 + 1, %edx         # no interrupts
        xor     %eax, %eax
        out     %al, %dx
        mov     $COM1 + 3, %edx         # divisor latch open
        mov     $0x80, %al
        out     %al, %dx
        mov     $COM1, %edx             # divisor 1: 115200 baud
        mov     $1, %al
        out     %al, %dx
        inc     %edx
        xor     %eax, %eax
        out     %al, %dx
        mov     $COM1 + 3, %edx         # 8 data bits, no parity, latch closed
        mov     $3, %al
        out     %al, %dx
        mov     $COM1 + 2, %edx         # FIFOs on and empty
        mov     $7, %al
        out     %al, %dx
        mov     $COM1 + 4, %edx         # DTR, RTS
        mov     $3, %al
        out     %al, %dx
        ret

# putc: print al. Clobbers rdx.
        .globl  putc
putc:
        push    %rax
        mov     $LSR, %edx
1:      in      %dx, %al
        test    $0x20, %al
        jz      1b
        pop     %rax
        mov     $COM1, %edx
        out     %al, %dx
        ret

# puts: print the string at rsi up to its zero byte. Clobbers rax, rdx, rsi.
        .globl  puts
puts:
1:      mov     (%rsi), %al
        inc     %rsi
        test    %al, %al
        jz      2f
        call    putc
        jmp     1b
2:      ret

# put_decimal: print rax. Clobbers rax, rcx, rdx.
        .globl  put_decimal
put_decimal:
        xor     %ecx, %ecx              # digits on the stack
1:      xor     %edx, %edx
        divq    ten
        push    %rdx
        inc     %ecx
        test    %rax, %rax
        jnz     1b
2:      pop     %rax
        add     $'0', %al
        call    putc
        dec     %ecx
        jnz     2b
        ret

# put_hex: print rax as 16 digits. Clobbers rax, rcx, rdx.
        .globl  put_hex
put_hex:
        mov     %rax, %rcx
        push    $16
1:      rol     $4, %rcx
        mov     %ecx, %eax
        and     $15, %eax
        mov     hex_digits(%rax), %al
        call    putc
        decl    (%rsp)
        jnz     1b
        pop     %rax
        ret

# begin_line, end_line: CPUs take turns line by line. Clobber rax, rdx, rsi.
        .globl  begin_line, end_line
begin_line:
1:      mov     $1, %eax
        xchg    %eax, print_lock
        test    %eax, %eax
        jz      2f
        pause
        jmp     1b
2:      ret

end_line:
        say     "\r\n"
        movl    $0, print_lock
        ret

# echo_input: take what has come in; for each whole line print "echo LINE". Called at every tick of the boot CPU.
        .globl  echo_input
echo_input:
1:      mov     $LSR, %edx
        in      %dx, %al
        cmp     $0xff, %al              # no serial port there
        je      4f
        test    $1, %al
        jz      4f
        mov     $COM1, %edx
        in      %dx, %al
        mov     line_length, %ecx
        cmp     $'\r', %al
        je      2f
        cmp     $'\n', %al
        je      2f
        cmp     $LINE_MAX, %ecx
        jae     1b
        mov     %al, line(%rcx)
        incl    line_length
        jmp     1b
2:      test    %ecx, %ecx              # the second half of \r\n, or an empty line
        jz      1b
        movb    $0, line(%rcx)
        movl    $0, line_length
        call    begin_line
        say     "echo "
        mov     $line, %esi
        call    puts
        call    end_line
        jmp     1b
4:      ret

        .section .rodata
        .balign 8
ten:    .quad   10
hex_digits:
        .ascii  "0123456789abcdef"

        .bss
        .balign 4
print_lock:
        .long   0
line_length:
        .long   0
line:   .skip   LINE_MAX + 1
