/* From fp32 sums to the result: the bias, and rounding. Written so that compilers find vectors; on x86 compiled twice, for
 * without AVX2 this takes a twentieth of the time of one token's product. */
#include "internal.h"

void wb_load_bias(const void *bias, int64_t dtype, int64_t first, int n, float *out) {
    uint16_t words[WB_STRIP] = {0};
    memset(out, 0, WB_STRIP * sizeof(float));
    if (dtype == WB_F32) {
        memcpy(out, (const float *)bias + first, (size_t)n * sizeof(float));
        return;
    }
    memcpy(words, (const uint16_t *)bias + first, (size_t)n * sizeof(uint16_t));
    for (int j = 0; j < WB_STRIP; j++) out[j] = wb_float_of_bf16(words[j]);
}

static inline void add(float *restrict values, const float *restrict bias, int n) {
    for (int j = 0; j < n; j++) values[j] += bias[j];
}

static inline void round_to(uint16_t *restrict out, const float *restrict values, int n) {
    for (int j = 0; j < n; j++) out[j] = wb_bf16_of_float(values[j]);
}

static inline void widen_to(float *restrict out, const uint16_t *restrict words, int n) {
    for (int j = 0; j < n; j++) out[j] = wb_float_of_bf16(words[j]);
}

/* One row's sums with a strip of W, of which the first n count; they are overwritten. */
WB_INLINE void write_row(void *y, int64_t at, int64_t dtype, float *sums, const float *bias, wb_bias_order order, int n) {
    uint16_t words[WB_STRIP];
    if (dtype == WB_BF16 && bias && order == WB_BIAS_AFTER) {
        round_to(words, sums, n);
        widen_to(sums, words, n);
    }
    if (bias) add(sums, bias, n);
    if (dtype == WB_F32)
        memcpy((float *)y + at, sums, (size_t)n * sizeof(float));
    else
        round_to((uint16_t *)y + at, sums, n);
}

#if WB_X86
__attribute__((target("avx2"))) static void write_row_avx2(void *y, int64_t at, int64_t dtype, float *sums,
                                                           const float *bias, wb_bias_order order, int n) {
    write_row(y, at, dtype, sums, bias, order, n);
}
#endif

void wb_write_row(void *y, int64_t at, int64_t dtype, float *sums, const float *bias, wb_bias_order order, int n) {
#if WB_X86
    if (wb_isa_best() >= WB_ISA_AVX2) {
        write_row_avx2(y, at, dtype, sums, bias, order, n);
        return;
    }
#endif
    write_row(y, at, dtype, sums, bias, order, n);
}
