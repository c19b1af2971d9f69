/* AVX-512 with bf16 dot products: 32 products an instruction, summed in fp32. */
#include "avx512.h"

#if WB_X86

/* Plane j of a group: values 4i + j, i = 0..31. */
TARGET static void prepare(const void *x, int dtype, int64_t d_in, void *out) {
    const __m512i every_fourth = _mm512_set_epi16(60, 56, 52, 48, 44, 40, 36, 32, 28, 24, 20, 16, 12, 8, 4, 0, 60, 56,
                                                  52, 48, 44, 40, 36, 32, 28, 24, 20, 16, 12, 8, 4, 0);
    const uint16_t *from = x;
    __m512i *to = out;
    (void)dtype; /* always bf16 */
    for (int64_t k = 0; k < d_in; k += GROUP) {
        __m512i part[4];
        for (int i = 0; i < 4; i++)
            part[i] = k + i * WB_BLOCK < d_in ? _mm512_loadu_si512(from + k + i * WB_BLOCK) : _mm512_setzero_si512();
        for (int j = 0; j < PLANES; j++) {
            __m512i at = _mm512_add_epi16(every_fourth, _mm512_set1_epi16((short)j));
            __m512i low = _mm512_permutex2var_epi16(part[0], at, part[1]);
            __m512i high = _mm512_permutex2var_epi16(part[2], at, part[3]);
            _mm512_store_si512(to++, _mm512_inserti64x4(low, _mm512_castsi512_si256(high), 1));
        }
    }
}

INLINE TARGET_BF16 __m512 add_dot(__m512 acc, __m512i w, __m512i x) {
    return _mm512_dpbf16_ps(acc, (__m512bh)w, (__m512bh)x);
}

INLINE TARGET_BF16 void plain(const void *w, int64_t w_stride, const void *x, int64_t x_stride, int64_t n_groups,
                              const int m, float *sums) {
    sums_of_row acc[WB_MAX_X_ROWS];
    clear(acc, m);
    for (int64_t v = 0; v < PLANES * n_groups; v++) {
        __m512i weights[WB_W_ROWS];
#pragma GCC unroll 4
        for (int j = 0; j < WB_W_ROWS; j++) weights[j] = _mm512_load_si512(vector_at(w, w_stride, j, v));
#pragma GCC unroll 6
        for (int row = 0; row < m; row++) {
            __m512i values = _mm512_load_si512(vector_at(x, x_stride, row, v));
#pragma GCC unroll 4
            for (int j = 0; j < WB_W_ROWS; j++) acc[row][j] = add_dot(acc[row][j], weights[j], values);
        }
    }
    store_sums(acc, m, sums, WB_W_ROWS);
}

INLINE TARGET_BF16 void add_group(sums_of_row *acc, int j, decoded w, int64_t g, const void *x, int64_t x_stride,
                                  const int m) {
#pragma GCC unroll 4
    for (int p = 0; p < PLANES; p++) {
        __m512i weights = plane_of(&w, p);
#pragma GCC unroll 6
        for (int row = 0; row < m; row++)
            acc[row][j] = add_dot(acc[row][j], weights, _mm512_load_si512(vector_at(x, x_stride, row, PLANES * g + p)));
    }
}

#define KERNEL_TARGET TARGET_BF16
#define MAX_PLAIN_X_ROWS WB_MAX_X_ROWS
#include "avx512_kernel.h"

/* ------------------------------------------------------------------ where vdpbf16ps is not exact enough
 * It takes subnormal inputs for zero. A weight is subnormal at scales 0 and 1 (those of an all-zero block excepted); a
 * subnormal x counts where scales are huge. */

enum { LOWEST_PLAIN_SCALE = 2, HIGHEST_PLAIN_SCALE = 239 };

INLINE int is_all_zero(const uint8_t *block) {
    uint64_t half[2];
    memcpy(half, block, sizeof half);
    return ((half[0] | half[1]) & 0x7777777777777777u) == 0;
}

TARGET static int has_extreme_scale(wb_row row, int64_t n_blocks) {
    const __m512i lowest = _mm512_set1_epi8(LOWEST_PLAIN_SCALE);
    __m512i highest = _mm512_setzero_si512();
    for (int64_t block = 0; block < n_blocks; block += 64) {
        __mmask64 inside = n_blocks - block < 64 ? ((__mmask64)1 << (n_blocks - block)) - 1 : ~(__mmask64)0;
        __m512i above = _mm512_sub_epi8(_mm512_mask_loadu_epi8(lowest, inside, row.scales + block), lowest);
        highest = _mm512_max_epu8(highest, above);
    }
    return _mm512_cmpgt_epu8_mask(highest, _mm512_set1_epi8((char)(HIGHEST_PLAIN_SCALE - LOWEST_PLAIN_SCALE))) != 0;
}

TARGET static int inexact(wb_row row, int64_t n_blocks) {
    if (!has_extreme_scale(row, n_blocks)) return 0;
    for (int64_t block = 0; block < n_blocks; block++) {
        uint8_t scale = row.scales[block];
        if (scale > HIGHEST_PLAIN_SCALE) return 1;
        if (scale < LOWEST_PLAIN_SCALE && !is_all_zero(row.blocks + block * WB_BLOCK_BYTES)) return 1;
    }
    return 0;
}

TARGET static float dot_exact(wb_row row, int64_t n_blocks, const void *x) {
    const __m512i *values = x;
    __m512 acc = _mm512_setzero_ps();
    for (int64_t g = 0; g * GROUP_BLOCKS < n_blocks; g++) {
        decoded w = decode_any(row, g, n_blocks);
        for (int p = 0; p < PLANES; p++) {
            __m512i weights = plane_of(&w, p), words = _mm512_load_si512(values++);
            acc = _mm512_fmadd_ps(floats_of_even_words(weights), floats_of_even_words(words), acc);
            acc = _mm512_fmadd_ps(floats_of_odd_words(weights), floats_of_odd_words(words), acc);
        }
    }
    return _mm512_reduce_add_ps(acc);
}

const wb_engine wb_avx512_bf16_engine = {
    .group = GROUP,
    .value_bytes = 2,
    .weight_bytes = 2,
    .max_plain_x_rows = MAX_PLAIN_X_ROWS,
    .max_packed_x_rows = MAX_PACKED_X_ROWS,
    .max_packed_rows = 12,
    .prepare = prepare,
    .decode = wb_decode_avx512,
    .dot_plain = dot_plain,
    .dot_packed = dot_packed,
    .inexact = inexact,
    .dot_exact = dot_exact,
};

#endif
