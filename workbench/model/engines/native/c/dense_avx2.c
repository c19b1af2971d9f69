/* A few rows times a dense bf16 matrix, AVX2 with FMA: products in fp32. */
#include "internal.h"

#if WB_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define INLINE static inline __attribute__((always_inline))

enum { VECTOR = 16 /* weights */ };

/* Of every 16 values the even ones, then the odd ones: in the order in which a vector of weights gives floats. */
static void prepare(const void *x, int dtype, int64_t d_in, void *out) {
    float *to = out;
    memset(out, 0, (size_t)wb_dense_padded(d_in) * sizeof(float));
    for (int64_t k = 0; k < d_in; k++)
        to[k / VECTOR * VECTOR + k % 2 * 8 + k % VECTOR / 2] =
            dtype == WB_F32 ? ((const float *)x)[k] : wb_float_of_bf16(((const uint16_t *)x)[k]);
}

INLINE TARGET __m256 add(__m256 acc, __m256i w, const char *x, int64_t v) {
    const float *values = (const float *)x + v * VECTOR;
    __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(w, 16));
    __m256 odd = _mm256_castsi256_ps(_mm256_and_si256(w, _mm256_set1_epi32((int)0xFFFF0000)));
    acc = _mm256_fmadd_ps(even, _mm256_load_ps(values), acc);
    return _mm256_fmadd_ps(odd, _mm256_load_ps(values + 8), acc);
}

/* Vector v of row r, and a look ahead to the n_w rows that follow. */
INLINE TARGET __m256i load_vector(const char *w, int64_t w_stride, const int n_w, int r, int64_t v) {
    if (v % 2 == 0) {
        uintptr_t next = (uintptr_t)w + (uintptr_t)(n_w * w_stride + (v / 2 * n_w + r) * 64);
        _mm_prefetch((const char *)next, _MM_HINT_T1);
    }
    return _mm256_loadu_si256((const __m256i *)(w + r * w_stride + v * 32));
}

INLINE TARGET __m256i load_rest(const char *w, int64_t n) {
    uint16_t words[VECTOR] = {0};
    memcpy(words, w, (size_t)n * 2);
    return _mm256_loadu_si256((const __m256i *)words);
}

INLINE TARGET float sum_of(__m256 acc) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(acc), _mm256_extractf128_ps(acc, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

/* n_w and m are constants wherever this is inlined: at most 8 sums and a vector in 16 registers. */
INLINE TARGET void multiply(const char *w, int64_t w_stride, const int n_w, int64_t d_in, const char *x,
                            int64_t x_stride, const int m, float *sums) {
    __m256 acc[WB_W_ROWS][2];
    int64_t n_vectors = d_in / VECTOR, rest = d_in % VECTOR;
#pragma GCC unroll 4
    for (int r = 0; r < n_w; r++) acc[r][0] = acc[r][1] = _mm256_setzero_ps();
    for (int64_t v = 0; v < n_vectors; v++)
#pragma GCC unroll 4
        for (int r = 0; r < n_w; r++) {
            __m256i words = load_vector(w, w_stride, n_w, r, v);
#pragma GCC unroll 2
            for (int row = 0; row < m; row++) acc[r][row] = add(acc[r][row], words, x + row * x_stride, v);
        }
#pragma GCC unroll 4
    for (int r = 0; r < n_w; r++) {
        __m256i words = load_rest(w + r * w_stride + n_vectors * 32, rest);
#pragma GCC unroll 2
        for (int row = 0; row < m; row++) {
            if (rest) acc[r][row] = add(acc[r][row], words, x + row * x_stride, n_vectors);
            sums[row * WB_STRIP + r] = sum_of(acc[r][row]);
        }
    }
}

TARGET static void dot(const char *w, int64_t w_stride, int n_w, int64_t d_in, const void *x, int64_t x_stride, int m,
                       float *sums) {
    for (int row = 0; row < m; row += 2) {
        const char *rows = (const char *)x + row * x_stride;
        float *to = sums + row * WB_STRIP;
        int r = 0;
        for (; r + WB_W_ROWS <= n_w; r += WB_W_ROWS)
            if (row + 1 < m)
                multiply(w + r * w_stride, w_stride, WB_W_ROWS, d_in, rows, x_stride, 2, to + r);
            else
                multiply(w + r * w_stride, w_stride, WB_W_ROWS, d_in, rows, x_stride, 1, to + r);
        for (; r < n_w; r++)
            for (int i = row; i < m && i < row + 2; i++)
                multiply(w + r * w_stride, w_stride, 1, d_in, (const char *)x + i * x_stride, x_stride, 1,
                         sums + i * WB_STRIP + r);
    }
}

const wb_dense_engine wb_dense_avx2 = {.value_bytes = sizeof(float), .prepare = prepare, .dot = dot};

#endif
