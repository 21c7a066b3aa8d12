/* Preloaded into a contestant, it hides what an AVX2 machine without VNNI would not have: AVX-512, AVX-VNNI, AMX and their kin.
 *
 *     cc -O1 -shared -fPIC benchmarks/only_avx2.c -o only_avx2.so && LD_PRELOAD=./only_avx2.so program
 *
 * Runtimes choose their kernels by the instruction `cpuid`. Linux lets a process ask that `cpuid` fault (arch_prctl(2),
 * ARCH_SET_CPUID; where /proc/cpuinfo lists cpuid_fault): the handler runs it for the program and clears the bits. Leaves 7 and 0x19
 * to 0x24 are all that speak of these instructions (Intel SDM, volume 2A, CPUID). Says so and stops the program where it cannot. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static long answers(int yes) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, yes); }

static void hide(uint32_t leaf, uint32_t sub, uint32_t r[4]) { /* eax, ebx, ecx, edx */
    if (leaf == 7 && sub == 0) {
        r[1] &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31); /* AVX512 F DQ IFMA PF ER CD BW VL */
        r[2] &= ~(1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14);                                  /* VBMI VBMI2 VNNI BITALG VPOPCNTDQ */
        r[3] &= ~(1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25);              /* 4VNNIW 4FMAPS VP2INTERSECT AMX FP16 */
    }
    if (leaf == 7 && sub == 1) {
        r[0] &= ~(1u << 4 | 1u << 5 | 1u << 21 | 1u << 23); /* AVX-VNNI, AVX512-BF16, AMX-FP16, AVX-IFMA */
        r[3] &= ~(1u << 4 | 1u << 5 | 1u << 8 | 1u << 10 | 1u << 19); /* AVX-VNNI-INT8, AVX-NE-CONVERT, AMX-COMPLEX, AVX-VNNI-INT16, AVX10 */
    }
    if (leaf >= 0x19 && leaf <= 0x24) memset(r, 0, 16); /* 0x1d, 0x1e: tiles; 0x24: AVX10 */
}

static void on_fault(int number, siginfo_t* info, void* context) {
    (void)info;
    greg_t* g = ((ucontext_t*)context)->uc_mcontext.gregs;
    const uint8_t* at = (const uint8_t*)g[REG_RIP];
    if (at[0] != 0x0f || at[1] != 0xa2) { /* a fault of the program's own */
        signal(number, SIG_DFL);
        return;
    }
    uint32_t leaf = (uint32_t)g[REG_RAX], sub = (uint32_t)g[REG_RCX], r[4];
    answers(1);
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub));
    answers(0);
    hide(leaf, sub, r);
    g[REG_RAX] = r[0], g[REG_RBX] = r[1], g[REG_RCX] = r[2], g[REG_RDX] = r[3];
    g[REG_RIP] += 2;
}

__attribute__((constructor)) static void begin(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault, action.sa_flags = SA_SIGINFO | SA_NODEFER;
    if (sigaction(SIGSEGV, &action, NULL) || answers(0)) {
        fputs("only_avx2: this CPU or kernel cannot hide instructions (cpuid_fault)\n", stderr);
        exit(2);
    }
}
