/* A few rows times a dense bf16 matrix, AVX-512: with bf16 dot products, and without (products in fp32). */
#include "avx512.h"

#if WB_X86

enum { VECTOR = 32 /* weights */ };

/* ------------------------------------------------------------------ rows of x */

TARGET static void prepare_bf16(const void *x, int dtype, int64_t d_in, void *out) {
    (void)dtype; /* always bf16 */
    memcpy(out, x, (size_t)d_in * 2);
    memset((uint16_t *)out + d_in, 0, (size_t)(wb_dense_padded(d_in) - d_in) * 2);
}

/* Of every 32 values the even ones, then the odd ones: in the order in which a vector of weights gives floats. */
static void prepare_f32(const void *x, int dtype, int64_t d_in, void *out) {
    float *to = out;
    memset(out, 0, (size_t)wb_dense_padded(d_in) * sizeof(float));
    for (int64_t k = 0; k < d_in; k++)
        to[k / VECTOR * VECTOR + k % 2 * 16 + k % VECTOR / 2] =
            dtype == WB_F32 ? ((const float *)x)[k] : wb_float_of_bf16(((const uint16_t *)x)[k]);
}

/* ------------------------------------------------------------------ kernels
 * n_w and m are constants wherever they are inlined, so that all sums live in registers. */

/* Vector v of a prepared row of x: of bf16, or two of floats. */
typedef struct {
    __m512i first, second;
} x_vector;

INLINE TARGET_BF16 x_vector load_x_bf16(const void *x, int64_t x_stride, int row, int64_t v) {
    return (x_vector){_mm512_load_si512(vector_at(x, x_stride, row, v)), _mm512_setzero_si512()};
}

INLINE TARGET x_vector load_x_f32(const void *x, int64_t x_stride, int row, int64_t v) {
    const __m512i *at = vector_at(x, x_stride, row, 2 * v);
    return (x_vector){_mm512_load_si512(at), _mm512_load_si512(at + 1)};
}

INLINE TARGET_BF16 __m512 add_bf16(__m512 acc, __m512i w, x_vector x) {
    return _mm512_dpbf16_ps(acc, (__m512bh)w, (__m512bh)x.first);
}

INLINE TARGET __m512 add_f32(__m512 acc, __m512i w, x_vector x) {
    acc = _mm512_fmadd_ps(floats_of_even_words(w), _mm512_castsi512_ps(x.first), acc);
    return _mm512_fmadd_ps(floats_of_odd_words(w), _mm512_castsi512_ps(x.second), acc);
}

/* Vector v of row r, and a look ahead to the n_w rows that follow. Not into the first-level cache, where x is. */
INLINE TARGET __m512i load_w(const char *w, int64_t w_stride, const int n_w, int r, int64_t v) {
    WB_PREFETCH_FAR((uintptr_t)w + (uintptr_t)(n_w * w_stride + (v * n_w + r) * 64));
    return _mm512_loadu_si512(w + r * w_stride + v * 64);
}

#define UNROLL _Pragma("GCC unroll 4")

#define KERNEL_OF(NAME, TARGET_OF, LOAD_X, ADD)                                                              \
    INLINE TARGET_OF void NAME(const char *w, int64_t w_stride, const int n_w, int64_t d_in, const void *x,  \
                               int64_t x_stride, const int m, float *sums) {                                 \
        __m512 acc[WB_W_ROWS][WB_DENSE_MAX_X_ROWS];                                                          \
        int64_t n_vectors = d_in / VECTOR;                                                                   \
        __mmask32 rest = ((__mmask32)1 << d_in % VECTOR) - 1;                                                \
        UNROLL for (int r = 0; r < n_w; r++)                                                                 \
            UNROLL for (int row = 0; row < m; row++) acc[r][row] = _mm512_setzero_ps();                      \
        for (int64_t v = 0; v < n_vectors + (rest != 0); v++) {                                              \
            __m512i words[WB_W_ROWS];                                                                        \
            if (v < n_vectors)                                                                               \
                UNROLL for (int r = 0; r < n_w; r++) words[r] = load_w(w, w_stride, n_w, r, v);              \
            else                                                                                             \
                UNROLL for (int r = 0; r < n_w; r++)                                                         \
                    words[r] = _mm512_maskz_loadu_epi16(rest, w + r * w_stride + v * 64);                    \
            UNROLL for (int row = 0; row < m; row++) {                                                       \
                x_vector values = LOAD_X(x, x_stride, row, v);                                               \
                UNROLL for (int r = 0; r < n_w; r++) acc[r][row] = ADD(acc[r][row], words[r], values);       \
            }                                                                                                \
        }                                                                                                    \
        UNROLL for (int r = 0; r < n_w; r++)                                                                 \
            UNROLL for (int row = 0; row < m; row++)                                                         \
                sums[row * WB_STRIP + r] = _mm512_reduce_add_ps(acc[r][row]);                                \
    }

KERNEL_OF(multiply_bf16, TARGET_BF16, load_x_bf16, add_bf16)
KERNEL_OF(multiply_f32, TARGET, load_x_f32, add_f32)

#define DOT_OF(NAME, TARGET_OF, MULTIPLY)                                                                        \
    TARGET_OF static void NAME(const char *w, int64_t w_stride, int n_w, int64_t d_in, const void *x,            \
                               int64_t x_stride, int m, float *sums) {                                           \
        int r = 0;                                                                                               \
        for (; r + WB_W_ROWS <= n_w; r += WB_W_ROWS) switch (m) {                                                \
                case 1: MULTIPLY(w + r * w_stride, w_stride, WB_W_ROWS, d_in, x, x_stride, 1, sums + r); break;  \
                case 2: MULTIPLY(w + r * w_stride, w_stride, WB_W_ROWS, d_in, x, x_stride, 2, sums + r); break;  \
                case 3: MULTIPLY(w + r * w_stride, w_stride, WB_W_ROWS, d_in, x, x_stride, 3, sums + r); break;  \
                default: MULTIPLY(w + r * w_stride, w_stride, WB_W_ROWS, d_in, x, x_stride, 4, sums + r);        \
            }                                                                                                    \
        for (; r < n_w; r++)                                                                                     \
            for (int row = 0; row < m; row++)                                                                    \
                MULTIPLY(w + r * w_stride, w_stride, 1, d_in, (const char *)x + row * x_stride, x_stride, 1,     \
                         sums + row * WB_STRIP + r);                                                             \
    }

DOT_OF(dot_bf16, TARGET_BF16, multiply_bf16)
DOT_OF(dot_f32, TARGET, multiply_f32)

const wb_dense_engine wb_dense_avx512_bf16 = {.value_bytes = 2, .prepare = prepare_bf16, .dot = dot_bf16};
const wb_dense_engine wb_dense_avx512 = {.value_bytes = 4, .prepare = prepare_f32, .dot = dot_f32};

#endif
