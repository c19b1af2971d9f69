/* Rows times a plain matrix, AVX2 with FMA: products in fp32. */
#include "internal.h"

#if WB_X86
#include "dense_kernel.h"

#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define INLINE static inline __attribute__((always_inline))

typedef __m256 sum;

INLINE TARGET sum zero(void) { return _mm256_setzero_ps(); }

INLINE TARGET void store_four(sum a, sum b, sum c, sum d, float *to) {
    sum all = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
}

/* ------------------------------------------------------------------ fp32 weights and x */
enum { step_f32 = 8, w_bytes_f32 = 32, x_bytes_f32 = 32 };
typedef __m256 w_f32, x_f32;

INLINE TARGET __m256 load_w_f32(const void *at) { return _mm256_loadu_ps(at); }
INLINE TARGET __m256 load_x_f32(const void *at) { return _mm256_loadu_ps(at); }
INLINE TARGET __m256 some_w_f32(const void *at, int n) {
    __m256i lane = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
    return _mm256_maskload_ps(at, _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane));
}
INLINE TARGET __m256 some_x_f32(const void *at, int n) { return some_w_f32(at, n); }
INLINE TARGET sum add_f32(sum acc, __m256 w, __m256 x) { return _mm256_fmadd_ps(w, x, acc); }

KERNELS_TO_2(f32, TARGET)

/* ------------------------------------------------------------------ bf16 weights, x in fp32, even numbers before odd */
enum { step_bf16 = 16, w_bytes_bf16 = 32, x_bytes_bf16 = 64 };
typedef struct {
    __m256 even, odd;
} w_bf16, x_bf16;

INLINE TARGET w_bf16 floats_of(__m256i words) {
    return (w_bf16){_mm256_castsi256_ps(_mm256_slli_epi32(words, 16)),
                    _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32((int)0xFFFF0000)))};
}
INLINE TARGET w_bf16 load_w_bf16(const void *at) { return floats_of(_mm256_loadu_si256(at)); }
INLINE TARGET w_bf16 some_w_bf16(const void *at, int n) {
    uint16_t words[16] = {0};
    memcpy(words, at, (size_t)n * 2);
    return load_w_bf16(words);
}
INLINE TARGET x_bf16 load_x_bf16(const void *at) {
    return (x_bf16){_mm256_load_ps(at), _mm256_load_ps((const float *)at + 8)};
}
INLINE TARGET x_bf16 some_x_bf16(const void *at, int n) { return (void)n, load_x_bf16(at); /* zeros are there */ }
INLINE TARGET sum add_bf16(sum acc, w_bf16 w, x_bf16 x) {
    return _mm256_fmadd_ps(w.odd, x.odd, _mm256_fmadd_ps(w.even, x.even, acc));
}

KERNELS_TO_2(bf16, TARGET)

static void prepare_bf16(const void *x, int dtype, int64_t d_in, void *out) {
    wb_prepare_even_odd(x, dtype, d_in, out, 8);
}

const wb_dense_engine wb_dense_avx2_f32 = {
    .in_place = WB_F32, .value_bytes = 4, .prepare = wb_prepare_f32, .max_x_rows = 2, .kernels = {f32_1, f32_2},
};
const wb_dense_engine wb_dense_avx2_bf16 = {
    .in_place = WB_NEVER, .value_bytes = 4, .prepare = prepare_bf16, .max_x_rows = 2, .kernels = {bf16_1, bf16_2},
};

#endif
