/* AVX-512 without bf16 dot products: products in fp32. And what needs no products: decoding and unpacking. */
#include "avx512.h"

#if WB_X86

TARGET void wb_decode_avx512(wb_row row, int64_t n_blocks, void *out) {
    __m512i *to = out;
    for (int64_t g = 0; g * GROUP_BLOCKS < n_blocks; g++, to += PLANES) {
        prefetch_lines(row, n_blocks, g, 1);
        decoded w = decode_any(row, g, n_blocks);
#pragma GCC unroll 4
        for (int j = 0; j < PLANES; j++) _mm512_store_si512(to + j, plane_of(&w, j));
    }
}

static void load_group(const void *x, int dtype, int64_t k, int64_t d_in, float *out) {
    int64_t n = wb_min(GROUP, d_in - k);
    memset(out, 0, GROUP * sizeof(float));
    if (dtype == WB_F32) memcpy(out, (const float *)x + k, (size_t)n * sizeof(float));
    for (int64_t i = 0; dtype == WB_BF16 && i < n; i++) out[i] = wb_float_of_bf16(((const uint16_t *)x)[k + i]);
}

/* A plane's even words are weights 8i + j, i = 0..15, its odd ones 8i + 4 + j: two vectors of x a plane. */
TARGET static void prepare(const void *x, int dtype, int64_t d_in, void *out) {
    const __m512i every_eighth = _mm512_set_epi32(120, 112, 104, 96, 88, 80, 72, 64, 56, 48, 40, 32, 24, 16, 8, 0);
    float *to = out, group[GROUP];
    for (int64_t k = 0; k < d_in; k += GROUP) {
        load_group(x, dtype, k, d_in, group);
        for (int j = 0; j < PLANES; j++, to += 32) {
            _mm512_store_ps(to, _mm512_i32gather_ps(every_eighth, group + j, 4));
            _mm512_store_ps(to + 16, _mm512_i32gather_ps(every_eighth, group + j + 4, 4));
        }
    }
}

INLINE TARGET void plain(const void *w, int64_t w_stride, const void *x, int64_t x_stride, int64_t n_groups, const int m,
                         float *sums) {
    sums_of_row acc[WB_MAX_X_ROWS];
    clear(acc, m);
    for (int64_t v = 0; v < PLANES * n_groups; v++) {
        __m512i weights[WB_W_ROWS];
#pragma GCC unroll 4
        for (int j = 0; j < WB_W_ROWS; j++) weights[j] = _mm512_load_si512(vector_at(w, w_stride, j, v));
#pragma GCC unroll 2
        for (int odd = 0; odd < 2; odd++) {
            __m512 floats[WB_W_ROWS];
#pragma GCC unroll 4
            for (int j = 0; j < WB_W_ROWS; j++)
                floats[j] = odd ? floats_of_odd_words(weights[j]) : floats_of_even_words(weights[j]);
#pragma GCC unroll 6
            for (int row = 0; row < m; row++) {
                __m512 values = _mm512_load_ps(vector_at(x, x_stride, row, 2 * v + odd));
#pragma GCC unroll 4
                for (int j = 0; j < WB_W_ROWS; j++) acc[row][j] = _mm512_fmadd_ps(floats[j], values, acc[row][j]);
            }
        }
    }
    store_sums(acc, m, sums, WB_W_ROWS);
}

INLINE TARGET void add_group(sums_of_row *acc, int j, decoded w, int64_t g, const void *x, int64_t x_stride,
                             const int m) {
#pragma GCC unroll 4
    for (int p = 0; p < PLANES; p++) {
        __m512i weights = plane_of(&w, p);
        __m512 even = floats_of_even_words(weights), odd = floats_of_odd_words(weights);
#pragma GCC unroll 6
        for (int row = 0; row < m; row++) {
            const __m512i *values = vector_at(x, x_stride, row, 2 * (PLANES * g + p));
            acc[row][j] = _mm512_fmadd_ps(even, _mm512_load_ps(values), acc[row][j]);
            acc[row][j] = _mm512_fmadd_ps(odd, _mm512_load_ps(values + 1), acc[row][j]);
        }
    }
}

#define KERNEL_TARGET TARGET
#define MAX_PLAIN_X_ROWS 5
#include "avx512_kernel.h"

const wb_engine wb_avx512_engine = {
    .group = GROUP,
    .value_bytes = 4,
    .weight_bytes = 2,
    .max_plain_x_rows = MAX_PLAIN_X_ROWS,
    .max_packed_x_rows = MAX_PACKED_X_ROWS,
    .max_packed_rows = 12,
    .prepare = prepare,
    .decode = wb_decode_avx512,
    .dot_plain = dot_plain,
    .dot_packed = dot_packed,
};

/* ------------------------------------------------------------------ unpack, in natural order */

INLINE TARGET __m512i block_of(const uint8_t *bytes, const uint16_t *table) {
    __m512i both = _mm512_broadcast_i64x4(_mm256_load_si256((const __m256i *)table));
    __m512i words = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)bytes));
    /* vpermw looks at the lowest 5 bits of a word only, and the table is there twice: no mask is needed. */
    return _mm512_permutexvar_epi16(_mm512_or_si512(words, _mm512_slli_epi32(words, 12)), both);
}

TARGET void wb_unpack_avx512(const uint8_t *blocks, const uint8_t *scales, int64_t n_blocks, int dtype, void *out) {
    for (int64_t i = 0; i < n_blocks; i++) {
        __m512i words = block_of(blocks + i * WB_BLOCK_BYTES, wb_table[scales[i]]);
        if (dtype == WB_BF16) {
            _mm512_storeu_si512((uint16_t *)out + i * WB_BLOCK, words);
        } else {
            __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(words));
            __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(words, 1));
            _mm512_storeu_si512((float *)out + i * WB_BLOCK, _mm512_slli_epi32(low, 16));
            _mm512_storeu_si512((float *)out + i * WB_BLOCK + 16, _mm512_slli_epi32(high, 16));
        }
    }
}

#endif
