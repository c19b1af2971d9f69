/* What the AVX-512 engines share: the decoding of packed weights.
 *
 * Four blocks, 128 weights, are decoded at a time. Their 64 bytes are 32 words of four codes each, which become four
 * vectors of bf16 weights, plane j holding weights 4i + j, i = 0..31. A plane is one vpermi2w: its table of 64 entries is
 * the four blocks' rows of wb_table, its index a code with the number of its block above it. The table holds value and
 * scale in one, so every scale comes out exact, inf, NaN and subnormals included.
 */
#ifndef WB_AVX512_H
#define WB_AVX512_H

#include "internal.h"

#if WB_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq")))
#define TARGET_BF16 __attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define INLINE static inline __attribute__((always_inline))

enum { GROUP = 128, GROUP_BYTES = 64, GROUP_BLOCKS = 4, PLANES = 4 };

/* A group on its way to its planes, which are made when they are needed: all at once would not fit into the registers. */
typedef struct {
    __m512i low, high;  /* tables of blocks 0 and 1, 2 and 3 */
    __m512i even, odd;  /* codes 4i and 4i + 2 in each word's bytes; codes 4i + 1 and 4i + 3 */
} decoded;

/* The table of two blocks. A masked broadcast is a load and a blend; vinserti64x4 would take a shuffle's place. */
INLINE TARGET __m512i table_of(uint32_t first_scale, uint32_t second_scale) {
    const __m256i *first = (const __m256i *)wb_table[first_scale], *second = (const __m256i *)wb_table[second_scale];
    __m512i low = _mm512_castsi256_si512(_mm256_load_si256(first));
    return _mm512_mask_broadcast_i64x4(low, 0xF0, _mm256_load_si256(second));
}

INLINE TARGET decoded decode_words(__m512i words, uint32_t four_scales) {
    const __m512i code = _mm512_set1_epi8(15);
    const __m512i block = _mm512_set_epi64(0x3030303030303030, 0x3030303030303030, 0x2020202020202020,
                                           0x2020202020202020, 0x1010101010101010, 0x1010101010101010, 0, 0);
    decoded w;
    w.low = table_of(four_scales & 255, four_scales >> 8 & 255);
    w.high = table_of(four_scales >> 16 & 255, four_scales >> 24);
    w.even = _mm512_ternarylogic_epi64(words, code, block, 0xEA); /* (words & code) | block */
    w.odd = _mm512_ternarylogic_epi64(_mm512_srli_epi16(words, 4), code, block, 0xEA);
    return w;
}

/* 32 bf16 weights. vpermi2w looks at a word's lowest six bits only. */
INLINE TARGET __m512i plane_of(const decoded *w, const int plane) {
    __m512i codes = plane % 2 ? w->odd : w->even;
    return _mm512_permutex2var_epi16(w->low, plane < 2 ? codes : _mm512_srli_epi16(codes, 8), w->high);
}

/* Group g of a row. */
INLINE TARGET decoded decode_group(wb_row row, int64_t g) {
    uint32_t scales;
    memcpy(&scales, row.scales + g * GROUP_BLOCKS, sizeof scales);
    return decode_words(_mm512_loadu_si512(row.blocks + g * GROUP_BYTES), scales);
}

/* The last group, of n_blocks, 1 to 3; filled up with zeros. */
INLINE TARGET decoded decode_rest(wb_row row, int64_t g, int n_blocks) {
    __mmask64 bytes = ((__mmask64)1 << n_blocks * WB_BLOCK_BYTES) - 1;
    __m128i scales = _mm_maskz_loadu_epi8((__mmask16)((1 << n_blocks) - 1), row.scales + g * GROUP_BLOCKS);
    return decode_words(_mm512_maskz_loadu_epi8(bytes, row.blocks + g * GROUP_BYTES),
                        (uint32_t)_mm_cvtsi128_si32(scales));
}

INLINE TARGET decoded decode_any(wb_row row, int64_t g, int64_t n_blocks) {
    int64_t left = n_blocks - g * GROUP_BLOCKS;
    return left >= GROUP_BLOCKS ? decode_group(row, g) : decode_rest(row, g, (int)left);
}

/* n lines of group g, of the bytes WB_W_ROWS rows further on. Memory is read at twice the speed with it:
 * rows are shorter than what the hardware needs to find its stride, and it stops at every page. */
INLINE void prefetch_lines(wb_row row, int64_t n_blocks, int64_t g, const int n) {
    uintptr_t next = (uintptr_t)row.blocks + (uintptr_t)(WB_W_ROWS * n_blocks * WB_BLOCK_BYTES + g * n * 64);
#pragma GCC unroll 4
    for (int line = 0; line < n; line++) WB_PREFETCH(next + (uintptr_t)(line * 64));
}

/* fp32 of the vector's words at even and at odd places. */
INLINE TARGET __m512 floats_of_even_words(__m512i words) { return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16)); }

INLINE TARGET __m512 floats_of_odd_words(__m512i words) {
    return _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32((int)0xFFFF0000)));
}

/* The sums of the lanes of four vectors. */
INLINE TARGET __m128 sums_of(__m512 a, __m512 b, __m512 c, __m512 d) {
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    __m512 all = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

/* Sums of m rows of x with WB_W_ROWS rows of W. m is a constant wherever this is inlined, so that all live in registers. */
typedef __m512 sums_of_row[WB_W_ROWS];

INLINE TARGET void clear(sums_of_row *acc, const int m) {
#pragma GCC unroll 6
    for (int row = 0; row < m; row++)
#pragma GCC unroll 4
        for (int j = 0; j < WB_W_ROWS; j++) acc[row][j] = _mm512_setzero_ps();
}

/* The first n_w of them. */
INLINE TARGET void store_sums(sums_of_row *acc, const int m, float *sums, int n_w) {
#pragma GCC unroll 6
    for (int row = 0; row < m; row++)
        _mm_mask_storeu_ps(sums + row * WB_STRIP, (__mmask8)((1 << n_w) - 1),
                           sums_of(acc[row][0], acc[row][1], acc[row][2], acc[row][3]));
}

/* Vector v of row r, rows being stride bytes apart. */
INLINE TARGET const __m512i *vector_at(const void *rows, int64_t stride, int r, int64_t v) {
    return (const __m512i *)((const char *)rows + r * stride) + v;
}

/* avx512.c */
void wb_decode_avx512(wb_row row, int64_t n_blocks, void *out);

#endif
#endif
