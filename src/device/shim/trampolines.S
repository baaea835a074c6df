/* The functions of one NVIDIA library, as jumps through a table: the first call of each finds the real one, see shim.c.
 * Where there is none, CODE functions return MISSING, an error code of that library, and TEXT functions a text.
 * For x86-64 and the System V calling convention. */

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define SLOTS JOIN(sitter_shim_slots_, LIBRARY)
#define RESOLVE JOIN(sitter_shim_resolve_, LIBRARY)

    .hidden SLOTS
    .hidden RESOLVE
    .globl SLOTS

    .section .data.rel.local, "aw"
    .balign 8
SLOTS:
    .text
    .set index, 0

/* One function. r10 and r11 belong to nobody during a call. */
.macro function name, missing
    .globl \name
    .hidden \name
    .type \name, @function
\name:
    jmp *.Lslot_\name(%rip)
.Lfirst_\name:
    lea \missing(%rip), %r10
    mov $index, %r11d
    jmp first_call
    .size \name, . - \name
    .pushsection .data.rel.local
.Lslot_\name:
    .quad .Lfirst_\name
    .popsection
    .set index, index + 1
.endm

#define CODE(name) function name, missing_code
#define TEXT(name) function name, missing_text
#include SYMBOLS

missing_code:
    mov $MISSING, %eax
    ret
missing_text:
    lea text_of_missing(%rip), %rax
    ret

/* Keeps the arguments, asks for function r11, and goes on there, or to r10. */
    .type first_call, @function
first_call:
    .cfi_startproc
    push %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset %rbp, -16
    mov %rsp, %rbp
    .cfi_def_cfa_register %rbp
    and $-16, %rsp
    sub $192, %rsp
    mov %rdi, 0(%rsp)
    mov %rsi, 8(%rsp)
    mov %rdx, 16(%rsp)
    mov %rcx, 24(%rsp)
    mov %r8, 32(%rsp)
    mov %r9, 40(%rsp)
    mov %rax, 48(%rsp)
    mov %r10, 56(%rsp)
    movups %xmm0, 64(%rsp)
    movups %xmm1, 80(%rsp)
    movups %xmm2, 96(%rsp)
    movups %xmm3, 112(%rsp)
    movups %xmm4, 128(%rsp)
    movups %xmm5, 144(%rsp)
    movups %xmm6, 160(%rsp)
    movups %xmm7, 176(%rsp)
    mov %r11, %rdi
    call RESOLVE
    mov 56(%rsp), %r11
    test %rax, %rax
    cmovnz %rax, %r11
    mov 0(%rsp), %rdi
    mov 8(%rsp), %rsi
    mov 16(%rsp), %rdx
    mov 24(%rsp), %rcx
    mov 32(%rsp), %r8
    mov 40(%rsp), %r9
    mov 48(%rsp), %rax
    movups 64(%rsp), %xmm0
    movups 80(%rsp), %xmm1
    movups 96(%rsp), %xmm2
    movups 112(%rsp), %xmm3
    movups 128(%rsp), %xmm4
    movups 144(%rsp), %xmm5
    movups 160(%rsp), %xmm6
    movups 176(%rsp), %xmm7
    leave
    .cfi_def_cfa %rsp, 8
    jmp *%r11
    .cfi_endproc
    .size first_call, . - first_call

    .section .rodata
text_of_missing:
    .asciz "the library is not on this machine"
    .section .note.GNU-stack, "", @progbits
