# Which guest-physical memory the test range covers, and the table of counts beside it.
#
#   low RAM    [kernel | page directories | count table | pages 0 .. low_pages-1 ]
#   high RAM   [pages low_pages .. ]                    (the largest piece at or above 4 GiB, if any)

        .include "tiny.inc"

        .text
        .code64

# find_memory: sort out the ranges from the loader's memory map and map what is above 4 GiB. Panics without a map.
        .globl  find_memory
find_memory:
        mov     start_info, %rbx
        cmpl    $START_MAGIC, (%rbx)
        jne     no_map
        cmpl    $1, START_VERSION(%rbx)
        jb      no_map
        mov     START_MEMMAP(%rbx), %rsi
        mov     START_ENTRIES(%rbx), %ecx
        xor     %r8d, %r8d              # end of the low piece
        xor     %r9d, %r9d              # start and end of the high one
        xor     %r10d, %r10d
        mov     $1, %r11d
        shl     $32, %r11               # 4 GiB
1:      test    %ecx, %ecx
        jz      4f
        cmpl    $1, 16(%rsi)
        jne     3f
        mov     (%rsi), %rax
        mov     8(%rsi), %rdx
        add     %rax, %rdx
        cmp     %r11, %rax
        jae     2f
        cmp     $kernel_end, %rax       # low: the piece that we are in
        ja      3f
        cmp     $kernel_end, %rdx
        jbe     3f
        mov     %rdx, %r8
        cmp     %r11, %rdx
        jbe     3f
        mov     %r11, %r8               # one piece across 4 GiB: the part below
        jmp     3f
2:      mov     %r10, %rdi
        sub     %r9, %rdi
        mov     %rdx, %r12
        sub     %rax, %r12
        cmp     %rdi, %r12
        jbe     3f
        mov     %rax, %r9
        mov     %rdx, %r10
3:      add     $24, %rsi
        dec     %ecx
        jmp     1b
4:      test    %r8, %r8
        jz      no_map

        mov     $kernel_end, %r12d      # r12: first free byte, page aligned
        cmpl    $0, have_1g_pages
        jne     5f
        call    map_high

        # Whole pages of each piece, less what the table takes: 4 bytes a page.
5:      mov     %r8, %rax
        sub     %r12, %rax
        shr     $PAGE_SHIFT, %rax       # low pages, the table's own still among them
        add     $PAGE_SIZE - 1, %r9
        shr     $PAGE_SHIFT, %r9
        shr     $PAGE_SHIFT, %r10
        mov     %r10, %rcx
        sub     %r9, %rcx               # high pages
        jnc     6f
        xor     %ecx, %ecx
6:      mov     %r12, counts
        lea     (%rax,%rcx), %rdx       # pages that the table has to cover
        mov     param_mem, %rdi
        shl     $20 - PAGE_SHIFT, %rdi
        jz      7f
        cmp     %rdx, %rdi
        cmovb   %rdi, %rdx
7:      mov     %rdx, pages
        shl     $2, %rdx
        add     $PAGE_SIZE - 1, %rdx
        shr     $PAGE_SHIFT, %rdx       # the table's pages
        cmp     %rdx, %rax
        jbe     no_room
        sub     %rdx, %rax
        mov     %rax, low_pages
        shl     $PAGE_SHIFT, %rdx
        add     %rdx, %r12
        mov     %r12, low_base
        add     %rax, %rcx              # what there is in all
        cmp     %rcx, pages
        jbe     8f
        mov     %rcx, pages

        # GPA of page p: p * 4096 + (p < low_pages ? low_base : high_bias).
8:      sub     %rax, %r9
        shl     $PAGE_SHIFT, %r9
        mov     %r9, high_bias

        mov     pages, %rax
        mov     param_span, %rdx
        shl     $20 - PAGE_SHIFT, %rdx
        jz      9f
        cmp     %rax, %rdx
        cmovb   %rdx, %rax
9:      mov     %rax, span
        ret

no_map:
        say     "PANIC no PVH memory map with RAM at the kernel\r\n"
        jmp     crash
no_room:
        say     "PANIC too little RAM below 4 GiB for the table of counts\r\n"
        jmp     crash

# map_high: page directories of 2 MiB pages from 4 GiB to r10 (the end of RAM), at r12, which moves on.
map_high:
        mov     $4, %ecx                # GiB
        mov     %r11, %rax
        or      $0x83, %rax
1:      mov     %rcx, %rdx
        shl     $30, %rdx
        cmp     %r10, %rdx
        jae     3f
        lea     3(%r12), %rdx
        mov     %rdx, pdpt(,%rcx,8)
        xor     %edi, %edi
2:      mov     %rax, (%r12)
        add     $8, %r12
        add     $0x200000, %rax
        inc     %edi
        cmp     $512, %edi
        jne     2b
        inc     %ecx
        jmp     1b
3:      ret

        .bss
        .balign 8
        .globl  counts, pages, span, low_pages, low_base, high_bias
counts: .quad   0                       # u32 for each page of the range: how often it was written, 0 never
pages:  .quad   0                       # of the whole range (mem=)
span:   .quad   0                       # of the part that the work goes over (span=)
low_pages:
        .quad   0
low_base:
        .quad   0
high_bias:
        .quad   0
