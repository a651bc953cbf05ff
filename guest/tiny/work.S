# The test pages: filling, touching, writing, checking.
#
# Page p of the range that has been written c times (filling counts as the first) holds
#
#   0      u64  the stamp: p << 32 | c
#   8           fill=full: a sequence that does not compress; else as it was
#   4088   u64  the stamp's complement: the page is never all zero, and a page of which only a part moved shows
#
# and counts[p] holds c, elsewhere. CPU k of n owns the pages p with p mod n = k: no page has two writers.

        .include "tiny.inc"

.set LINES_MAX,      32                 # BAD lines printed; all are counted
.set STRIDE,         17                 # pages of its own that a CPU goes on by, with order=stride

        .text
        .code64

# page_address reg: the GPA of page rbx. Expects r10 = low_pages, r11 = low_base, r12 = high_bias. Clobbers rax.
.macro page_address reg
        mov     %r11, \reg
        cmp     %r10, %rbx
        cmovae  %r12, \reg
        mov     %rbx, %rax
        shl     $PAGE_SHIFT, %rax
        add     %rax, \reg
.endm

.macro load_layout
        mov     cpu_count, %r8
        mov     low_pages, %r10
        mov     low_base, %r11
        mov     high_bias, %r12
        mov     counts, %r13
.endm

# expected_stamp: rdx = what page rbx must hold; to `never` if it was never written. Clobbers rax.
.macro expected_stamp never
        mov     (%r13,%rbx,4), %eax
        mov     %rbx, %rdx
        shl     $32, %rdx
        test    %eax, %eax
        jz      \never
        or      %rax, %rdx
.endm

# check_stamp: compare both stamps of the page at rdi with rdx; report what differs. Clobbers rax.
.macro check_stamp
        cmp     %rdx, (%rdi)
        je      .Lhead\@
        call    report_bad
.Lhead\@:
        mov     %rdx, %rax
        not     %rax
        cmp     %rax, PAGE_TAIL(%rdi)
        je      .Ltail\@
        add     $PAGE_TAIL, %rdi
        not     %rdx
        call    report_bad
        not     %rdx
        sub     $PAGE_TAIL, %rdi
.Ltail\@:
.endm

# The loops: visit ecx pages (at least one) in the CPU's order and do the work to each. One for each combination, since
# a loop that asks at every page what it is to do takes longer.
.macro work_loop name, work, order, check
\name:
        load_layout
        mov     CPU_INDEX(%rbp), %r14
    .ifc \order, rand
        mov     CPU_RANDOM(%rbp), %r15
        mov     random_multiplier, %rsi
        mov     CPU_SHARE(%rbp), %r9
    .else
        mov     CPU_PAGE(%rbp), %rbx
      .ifc \order, seq
        mov     span, %r9
      .else
        mov     CPU_SHARE(%rbp), %r15   # down: becomes the last page; stride: how far to go back at the end
        imul    %r8, %r15
        lea     (%r15,%r14), %r9        # behind the last page that is ours
      .endif
      .ifc \order, down
        mov     %r9, %r15
        sub     %r8, %r15
      .endif
      .ifc \order, stride
        imul    $STRIDE, %r8, %rsi
      .endif
    .endif
.Lnext\@:
    .ifc \order, rand
        imul    %rsi, %r15
        add     $0x14057b7f, %r15
        mov     %r15, %rax
        mul     %r9                     # rdx: 0 .. share-1, from the good, high bits
        imul    %r8, %rdx
        lea     (%rdx,%r14), %rbx
    .endif
        page_address %rdi
    .ifc \check, 1
        expected_stamp .Lnever\@
        check_stamp
      .ifc \work, write
.Lnever\@:
        inc     %rdx
        mov     %rdx, (%rdi)
        not     %rdx
        mov     %rdx, PAGE_TAIL(%rdi)
        incl    (%r13,%rbx,4)
      .else
.Lnever\@:
        mov     (%rdi), %rax
      .endif
    .else
      .ifc \work, write
        incq    (%rdi)
      .else
        mov     (%rdi), %rax
      .endif
    .endif
    .ifc \order, seq
        add     %r8, %rbx
        cmp     %r9, %rbx
        cmovae  %r14, %rbx
    .endif
    .ifc \order, down
        sub     %r8, %rbx
        cmovb   %r15, %rbx
    .endif
    .ifc \order, stride
        add     %rsi, %rbx
.Lback\@:
        cmp     %r9, %rbx
        jb      .Lin\@
        sub     %r15, %rbx
        jmp     .Lback\@
.Lin\@:
    .endif
        dec     %ecx
        jnz     .Lnext\@
    .ifc \order, rand
        mov     %r15, CPU_RANDOM(%rbp)
    .else
        mov     %rbx, CPU_PAGE(%rbp)
    .endif
        ret
.endm

        work_loop touch_seq,        touch, seq,  0
        work_loop touch_seq_check,  touch, seq,  1
        work_loop touch_rand,       touch, rand, 0
        work_loop touch_rand_check, touch, rand, 1
        work_loop touch_down,         touch, down,   0
        work_loop touch_down_check,   touch, down,   1
        work_loop touch_stride,       touch, stride, 0
        work_loop touch_stride_check, touch, stride, 1
        work_loop write_seq,        write, seq,  0
        work_loop write_seq_check,  write, seq,  1
        work_loop write_rand,       write, rand, 0
        work_loop write_rand_check, write, rand, 1
        work_loop write_down,         write, down,   0
        work_loop write_down_check,   write, down,   1
        work_loop write_stride,       write, stride, 0
        work_loop write_stride_check, write, stride, 1

# choose_work: the loop for what the command line asks. Checks need the counts; without fill= they begin at 0.
        .globl  choose_work
choose_work:
        mov     param_sweep, %rax
        or      %rax, param_check       # unchecked writes would leave nothing to sweep by
        jz      1f
        cmpq    $0, param_fill
        jne     1f
        mov     counts, %rdi
        mov     pages, %rcx             # the table is whole pages: an odd count may be rounded up
        inc     %rcx
        shr     $1, %rcx
        xor     %eax, %eax
        rep stosq
1:      mov     param_work, %rax        # 0 idle
        shl     $2, %rax
        add     param_order, %rax
        shl     $1, %rax
        add     param_check, %rax
        mov     work_loops(,%rax,8), %rax
        mov     %rax, work_batch
        ret

# start_share: where this CPU begins.
        .globl  start_share
start_share:
        mov     CPU_INDEX(%rbp), %rax
        mov     %rax, CPU_PAGE(%rbp)
        inc     %rax
        imul    random_multiplier, %rax
        mov     %rax, CPU_RANDOM(%rbp)
        mov     span, %rax              # pages p < span with p mod n = index: (span + n - 1 - index) / n
        add     cpu_count, %rax
        dec     %rax
        sub     CPU_INDEX(%rbp), %rax
        xor     %edx, %edx
        divq    cpu_count
        mov     %rax, CPU_SHARE(%rbp)
        ret

# fill: every page of the range that is ours.
        .globl  fill
fill:
        load_layout
        mov     pages, %r9
        mov     CPU_INDEX(%rbp), %rbx
        jmp     3f
1:      page_address %rdi
        mov     %rbx, %rdx
        shl     $32, %rdx
        inc     %rdx
        mov     %rdx, (%rdi)
        not     %rdx
        mov     %rdx, PAGE_TAIL(%rdi)
        movl    $1, (%r13,%rbx,4)
        cmpq    $2, param_fill
        jne     2f
        call    fill_body
2:      add     %r8, %rbx
3:      cmp     %r9, %rbx
        jb      1b
        ret

# The body of page p, word i = 1 .. 510: (p + 1) * MULTIPLIER + i * STEP. No byte run repeats, within a page or across.
.macro first_word
        lea     1(%rbx), %rax
        imul    random_multiplier, %rax
.endm
.set BODY_WORDS,     PAGE_SIZE / 8 - 2

# fill_body: of page rbx at rdi. Clobbers rax, rcx, rdx, rdi.
fill_body:
        first_word
        mov     body_step, %rdx
        add     $8, %rdi
        mov     $BODY_WORDS / 10, %ecx
1:
.rept 10
        add     %rdx, %rax
        stosq
.endr
        dec     %ecx
        jnz     1b
        ret

# sweep: check every page of the range that is ours, and with fill=full its whole body.
        .globl  sweep
sweep:
        load_layout
        mov     pages, %r9
        mov     CPU_INDEX(%rbp), %rbx
        jmp     3f
1:      page_address %rdi
        expected_stamp 2f
        check_stamp
        cmpq    $2, param_fill
        jne     2f
        call    check_body
2:      add     %r8, %rbx
3:      cmp     %r9, %rbx
        jb      1b
        ret

# check_body: of page rbx at rdi; the first wrong word is reported. Clobbers rax, rcx, rdx, rdi.
check_body:
        first_word
        add     $8, %rdi
        mov     $BODY_WORDS, %ecx
1:      add     body_step, %rax
        cmp     %rax, (%rdi)
        jne     2f
        add     $8, %rdi
        dec     %ecx
        jnz     1b
        ret
2:      mov     %rax, %rdx
        # fall through

# report_bad: page rbx, the word at rdi should be rdx. Keeps all registers.
report_bad:
        push    %rax
        push    %rcx
        push    %rdx
        push    %rsi
        push    (%rdi)                  # what is there, before it changes
        push    %rdx
        incq    CPU_BAD(%rbp)
        mov     $1, %eax
        lock xadd %eax, lines
        cmp     $LINES_MAX, %eax
        jae     1f
        call    begin_line
        say     "BAD page "
        mov     %rbx, %rax
        call    put_decimal
        say     " want "
        mov     (%rsp), %rax
        call    put_hex
        say     " got "
        mov     8(%rsp), %rax
        call    put_hex
        say     " at "
        mov     %rdi, %rax
        call    put_hex
        call    end_line
1:      add     $16, %rsp
        pop     %rsi
        pop     %rdx
        pop     %rcx
        pop     %rax
        ret

        .section .rodata
        .balign 8
random_multiplier:
        .quad   0x5851f42d4c957f2d      # Knuth's, of a linear congruential generator modulo 2^64
body_step:
        .quad   0x9e3779b97f4a7c15      # 2^64 over the golden ratio
work_loops:
        .quad   0, 0, 0, 0, 0, 0, 0, 0  # idle
        .quad   touch_seq, touch_seq_check, touch_rand, touch_rand_check
        .quad   touch_down, touch_down_check, touch_stride, touch_stride_check
        .quad   write_seq, write_seq_check, write_rand, write_rand_check
        .quad   write_down, write_down_check, write_stride, write_stride_check

        .bss
        .balign 8
        .globl  work_batch
work_batch:
        .quad   0
lines:  .long   0
