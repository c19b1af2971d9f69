/* Rows times a plain matrix, AVX-512: fp32 weights; bf16 weights with bf16 dot products, and without (products in fp32). */
#include "avx512.h"

#if WB_X86
#include "dense_kernel.h"

typedef __m512 sum;

INLINE TARGET sum zero(void) { return _mm512_setzero_ps(); }

INLINE TARGET void store_four(sum a, sum b, sum c, sum d, float *to) { _mm_storeu_ps(to, sums_of(a, b, c, d)); }

INLINE TARGET __m512i some_words(const void *at, int n) {
    return _mm512_maskz_loadu_epi16(((__mmask32)1 << n) - 1, at);
}

/* ------------------------------------------------------------------ fp32 weights and x */
enum { step_f32 = 16, w_bytes_f32 = 64, x_bytes_f32 = 64 };
typedef __m512 w_f32, x_f32;

INLINE TARGET __m512 load_w_f32(const void *at) { return _mm512_loadu_ps(at); }
INLINE TARGET __m512 load_x_f32(const void *at) { return _mm512_loadu_ps(at); }
INLINE TARGET __m512 some_w_f32(const void *at, int n) { return _mm512_maskz_loadu_ps((__mmask16)((1 << n) - 1), at); }
INLINE TARGET __m512 some_x_f32(const void *at, int n) { return some_w_f32(at, n); }
INLINE TARGET sum add_f32(sum acc, __m512 w, __m512 x) { return _mm512_fmadd_ps(w, x, acc); }

KERNELS_TO_6(f32, TARGET)

/* ------------------------------------------------------------------ bf16 weights and x */
enum { step_bf16 = 32, w_bytes_bf16 = 64, x_bytes_bf16 = 64 };
typedef __m512i w_bf16, x_bf16;

INLINE TARGET __m512i load_w_bf16(const void *at) { return _mm512_loadu_si512(at); }
INLINE TARGET __m512i load_x_bf16(const void *at) { return _mm512_loadu_si512(at); }
INLINE TARGET __m512i some_w_bf16(const void *at, int n) { return some_words(at, n); }
INLINE TARGET __m512i some_x_bf16(const void *at, int n) { return some_words(at, n); }
INLINE TARGET_BF16 sum add_bf16(sum acc, __m512i w, __m512i x) {
    return _mm512_dpbf16_ps(acc, (__m512bh)w, (__m512bh)x);
}

KERNELS_TO_6(bf16, TARGET_BF16)

/* ------------------------------------------------------------------ bf16 weights, x in fp32, even numbers before odd */
enum { step_wide = 32, w_bytes_wide = 64, x_bytes_wide = 128 };
typedef __m512i w_wide;
typedef struct {
    __m512 even, odd;
} x_wide;

INLINE TARGET __m512i load_w_wide(const void *at) { return _mm512_loadu_si512(at); }
INLINE TARGET __m512i some_w_wide(const void *at, int n) { return some_words(at, n); }
INLINE TARGET x_wide load_x_wide(const void *at) {
    return (x_wide){_mm512_load_ps(at), _mm512_load_ps((const float *)at + 16)};
}
INLINE TARGET x_wide some_x_wide(const void *at, int n) { return (void)n, load_x_wide(at); /* zeros are there */ }
INLINE TARGET sum add_wide(sum acc, __m512i w, x_wide x) {
    acc = _mm512_fmadd_ps(floats_of_even_words(w), x.even, acc);
    return _mm512_fmadd_ps(floats_of_odd_words(w), x.odd, acc);
}

KERNELS_TO_4(wide, TARGET)

static void prepare_wide(const void *x, int dtype, int64_t d_in, void *out) {
    wb_prepare_even_odd(x, dtype, d_in, out, 16);
}

const wb_dense_engine wb_dense_avx512_f32 = {
    .in_place = WB_F32, .value_bytes = 4, .prepare = wb_prepare_f32,
    .max_x_rows = 6, .kernels = {f32_1, f32_2, f32_3, f32_4, f32_5, f32_6},
};
const wb_dense_engine wb_dense_avx512_bf16 = {
    .in_place = WB_BF16, .max_x_rows = 6, .kernels = {bf16_1, bf16_2, bf16_3, bf16_4, bf16_5, bf16_6},
};
const wb_dense_engine wb_dense_avx512_wide = {
    .in_place = WB_NEVER, .value_bytes = 4, .prepare = prepare_wide,
    .max_x_rows = 4, .kernels = {wide_1, wide_2, wide_3, wide_4},
};

#endif
