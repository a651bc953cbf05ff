# The order of things: set up, fill, work with a heartbeat, sweep, end. The boot CPU leads; the others follow `phase`.

        .include "tiny.inc"

        .text
        .code64

        .globl  boot_cpu_main, other_cpu_main
boot_cpu_main:
        call    serial_init
        mov     start_info, %rsi
        mov     START_CMDLINE(%rsi), %rsi
        call    parse_params
        call    find_memory
        call    read_acpi
        call    build_idt
        call    apic_init
        sti
        call    start_cpus
        call    choose_work
        call    banner
        mov     param_beat, %rax        # ms to ticks, at least one
        imul    $TICK_HZ, %rax, %rax
        xor     %edx, %edx
        divq    thousand
        test    %eax, %eax
        jnz     1f
        inc     %eax
1:      mov     %eax, beat_period
        movl    $PHASE_FILL, phase
        jmp     run

other_cpu_main:
        call    load_idt
        call    apic_init
        sti
        movl    $PHASE_ONLINE, CPU_DONE(%rbp)
        # fall through

# What every CPU does, in step with `phase`.
run:
        mov     $PHASE_FILL, %edi
        call    wait_phase
        call    start_share
        cmpq    $0, param_fill
        je      1f
        call    fill
1:      mov     $PHASE_FILL, %edi
        call    finish_phase
        jne     2f
        call    begin_line
        say     "ready"
        call    end_line
        mov     CPU_TICKS(%rbp), %eax   # work and beats begin now
        mov     %eax, CPU_SEEN(%rbp)
        mov     beat_period, %eax
        mov     %eax, beat_left
        movl    $PHASE_WORK, phase
2:      mov     $PHASE_WORK, %edi
        call    wait_phase
        mov     CPU_TICKS(%rbp), %eax
        mov     %eax, CPU_SEEN(%rbp)

work_loop:
        cmpl    $PHASE_WORK, phase
        jne     work_done
        mov     CPU_TICKS(%rbp), %eax
        mov     %eax, %ecx
        sub     CPU_SEEN(%rbp), %ecx
        jz      1f
        mov     %eax, CPU_SEEN(%rbp)
        call    tick
1:      cmpq    $0, work_batch
        je      3f
        cmpq    $0, CPU_SHARE(%rbp)
        je      3f
        mov     $BATCH, %ecx
        cmpq    $0, param_rate
        je      2f
        mov     CPU_CREDIT(%rbp), %rax
        xor     %edx, %edx
        mov     $TICK_HZ, %edi
        div     %rdi
        test    %rax, %rax
        jz      3f
        cmp     %rax, %rcx
        cmova   %rax, %rcx
        imul    $TICK_HZ, %rcx, %rax
        sub     %rax, CPU_CREDIT(%rbp)
2:      add     %rcx, CPU_VISITS(%rbp)
        call    *work_batch
        jmp     work_loop
3:      hlt                             # the next tick wakes us
        jmp     work_loop

work_done:
        cmpq    $0, param_sweep
        je      1f
        call    sweep
1:      mov     $PHASE_SWEEP, %edi
        call    finish_phase
        jne     halt
        call    begin_line
        cmpq    $0, param_sweep
        je      2f
        say     "sweep pages "
        mov     pages, %rax
        call    put_decimal
        mov     $CPU_BAD, %edi
        call    sum_cpus
        push    %rax
        say     " bad "
        pop     %rax
        call    put_decimal
        say     "\r\n"
2:      say     "end"
        call    end_line
        jmp     *param_end

# wait_phase: until `phase` is edi or beyond.
wait_phase:
1:      cmp     %edi, phase
        jae     2f
        hlt
        jmp     1b
2:      ret

# finish_phase: this CPU has finished phase edi. On the boot CPU (it returns with ZF set) wait for all the others.
finish_phase:
        mov     %edi, CPU_DONE(%rbp)
        cmpq    $0, CPU_INDEX(%rbp)
        jne     3f
        mov     cpu_count, %ecx
        mov     $cpus_area, %esi
1:      cmp     %edi, CPU_DONE(%rsi)
        jae     2f
        hlt
        jmp     1b
2:      add     $CPU_SIZE, %rsi
        dec     %ecx
        jnz     1b
3:      ret

# tick: ecx ticks have passed. Credit for rate=; on the boot CPU also console input and the heartbeat.
tick:
        mov     param_rate, %rax
        imul    %rcx, %rax
        add     CPU_CREDIT(%rbp), %rax
        mov     param_rate, %rdx        # who can't keep up doesn't run after it for ever: at most one second's worth
        imul    $TICK_HZ, %rdx, %rdx
        cmp     %rdx, %rax
        cmova   %rdx, %rax
        mov     %rax, CPU_CREDIT(%rbp)
        cmpq    $0, CPU_INDEX(%rbp)
        jne     2f
        sub     %ecx, beat_left
        jg      1f
        mov     beat_period, %eax
        add     %eax, beat_left
        call    beat
1:      jmp     echo_input
2:      ret

# beat: the heartbeat line, and the end once there were stop= of them.
beat:
        call    begin_line
        say     "beat "
        incl    beats
        mov     beats, %eax
        call    put_decimal
        say     " pages "
        mov     $CPU_VISITS, %edi
        call    sum_cpus
        call    put_decimal
        say     " bad "
        mov     $CPU_BAD, %edi
        call    sum_cpus
        call    put_decimal
        call    end_line
        mov     beats, %eax
        cmp     param_stop, %rax
        jne     1f
        movl    $PHASE_SWEEP, phase
1:      ret

# sum_cpus: the sum over all CPUs of their field at offset edi, in rax. Clobbers rcx, rdi.
sum_cpus:
        add     $cpus_area, %rdi
        mov     cpu_count, %ecx
        xor     %eax, %eax
1:      add     (%rdi), %rax
        add     $CPU_SIZE, %rdi
        dec     %ecx
        jnz     1b
        ret

# banner: the first line.
banner:
        call    begin_line
        say     "tiny: cpus="
        mov     cpu_count, %rax
        call    put_decimal
        say     " mem="
        mov     pages, %rax
        shr     $20 - PAGE_SHIFT, %rax
        call    put_decimal
        say     "M span="
        mov     span, %rax
        shr     $20 - PAGE_SHIFT, %rax
        call    put_decimal
        say     "M pages="
        mov     pages, %rax
        call    put_decimal
        say     " work="
        mov     param_work, %esi        # words of 16 bytes: name, value
        shl     $4, %esi
        add     $works, %esi
        call    puts
        say     " order="
        mov     param_order, %esi
        shl     $4, %esi
        add     $orders, %esi
        call    puts
        say     " fill="
        mov     param_fill, %rax
        call    put_decimal
        say     " check="
        mov     param_check, %rax
        call    put_decimal
        jmp     end_line

        .section .rodata
        .balign 8
thousand:
        .quad   1000

        .bss
        .balign 4
phase:  .long   0
beats:  .long   0
beat_left:
        .long   0
beat_period:
        .long   0
