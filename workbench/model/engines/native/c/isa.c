/* Which instruction sets this machine and this build have. */
#include "internal.h"

#if WB_X86
#include <cpuid.h>

enum { BIT_FMA = 12, BIT_OSXSAVE = 27, BIT_AVX = 28 };                                       /* leaf 1, ecx */
enum { BIT_AVX2 = 5, BIT_AVX512F = 16, BIT_AVX512DQ = 17, BIT_AVX512BW = 30, BIT_AVX512VL = 31 }; /* leaf 7, ebx */
enum { BIT_AVX512_BF16 = 5 };                                                                /* leaf 7.1, eax */
enum { YMM_STATE = 0x6, ZMM_STATE = 0xE6 };                                                  /* xcr0 */

static uint64_t enabled_state(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((uint64_t)high << 32) | low;
}

static int has(uint32_t word, int bit) { return (word >> bit) & 1; }

static int detect(void) {
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, BIT_OSXSAVE) || !has(c, BIT_AVX) || !has(c, BIT_FMA))
        return WB_ISA_GENERIC;
    uint64_t state = enabled_state();
    if ((state & YMM_STATE) != YMM_STATE || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has(b, BIT_AVX2))
        return WB_ISA_GENERIC;
    int avx512 = has(b, BIT_AVX512F) && has(b, BIT_AVX512BW) && has(b, BIT_AVX512VL) && has(b, BIT_AVX512DQ);
    if (!avx512 || (state & ZMM_STATE) != ZMM_STATE) return WB_ISA_AVX2;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && has(a, BIT_AVX512_BF16)) return WB_ISA_AVX512_BF16;
    return WB_ISA_AVX512;
}
#else
static int detect(void) { return WB_ISA_GENERIC; }
#endif

/* Asked once: in a virtual machine cpuid costs microseconds. Threads that race store the same answer. */
int32_t wb_isa_best(void) {
    static volatile int best = WB_ISA_AUTO;
    int found = best;
    if (found == WB_ISA_AUTO) best = found = detect();
    return found;
}

/* Each instruction set contains those before it. */
int32_t wb_isa_supported(int32_t isa) { return isa >= WB_ISA_GENERIC && isa <= wb_isa_best(); }

int wb_resolve_isa(int64_t isa) {
    if (isa == WB_ISA_AUTO) return wb_isa_best();
    return isa > 0 && isa < WB_ISA_COUNT && wb_isa_supported((int32_t)isa) ? (int)isa : WB_ISA_COUNT;
}

const char *wb_isa_name(int32_t isa) {
    static const char *const names[WB_ISA_COUNT] = {"auto", "generic", "avx2", "avx512", "avx512_bf16"};
    return isa >= 0 && isa < WB_ISA_COUNT ? names[isa] : "unknown";
}
