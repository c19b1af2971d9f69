/* AVX2 with FMA: products in fp32.
 *
 * A block is decoded at a time. Its 16 bytes become 32 codes, those of even k in one half of a vector and those of odd k
 * in the other. Byte shuffles look up the codes' bf16 values, low and high bytes apart; interleaved they are words, and a
 * shift or a mask makes floats of the even or the odd words.
 */
#include "internal.h"

#if WB_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define INLINE static inline __attribute__((always_inline))

enum { VECTORS = 4 /* a block's */, MAX_X_ROWS = 3 };

/* Vector 2h + p, of halves h of the block: weights 16h + 4i + 2p, i = 0..3, then 16h + 4i + 2p + 1. */
typedef struct {
    __m256 vector[VECTORS];
} decoded;

INLINE TARGET decoded decode_block(const uint8_t *bytes, uint8_t scale) {
    const __m128i *table = (const __m128i *)wb_byte_table[scale];
    const __m256i odd_words = _mm256_set1_epi32((int)0xFFFF0000);
    __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)bytes));
    __m256i shifted = _mm256_srlv_epi32(both, _mm256_set_epi32(4, 4, 4, 4, 0, 0, 0, 0));
    __m256i codes = _mm256_and_si256(shifted, _mm256_set1_epi8(15));
    __m256i low = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_load_si128(table)), codes);
    __m256i high = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_load_si128(table + 1)), codes);
    __m256i first = _mm256_unpacklo_epi8(low, high), second = _mm256_unpackhi_epi8(low, high);
    return (decoded){{
        _mm256_castsi256_ps(_mm256_slli_epi32(first, 16)),
        _mm256_castsi256_ps(_mm256_and_si256(first, odd_words)),
        _mm256_castsi256_ps(_mm256_slli_epi32(second, 16)),
        _mm256_castsi256_ps(_mm256_and_si256(second, odd_words)),
    }};
}

TARGET static void decode(wb_row row, int64_t n_blocks, void *out) {
    float *to = out;
    for (int64_t block = 0; block < n_blocks; block++, to += WB_BLOCK) {
        decoded w = decode_block(row.blocks + block * WB_BLOCK_BYTES, row.scales[block]);
        for (int v = 0; v < VECTORS; v++) _mm256_store_ps(to + 8 * v, w.vector[v]);
    }
}

static void prepare(const void *x, int dtype, int64_t d_in, void *out) {
    float *to = out;
    for (int64_t k = 0; k < d_in; k++) {
        int64_t at = k / 16 * 16 + k / 2 % 2 * 8 + k % 2 * 4 + k / 4 % 4; /* of k's half, vector, lane's half, lane */
        to[at] = dtype == WB_F32 ? ((const float *)x)[k] : wb_float_of_bf16(((const uint16_t *)x)[k]);
    }
}

/* A line of the bytes WB_W_ROWS rows further on, for each block of these rows. */
INLINE void prefetch(wb_row row, int64_t n_blocks, int64_t block) {
    uintptr_t next = (uintptr_t)row.blocks + (uintptr_t)(WB_W_ROWS * (n_blocks + block) * WB_BLOCK_BYTES);
    WB_PREFETCH(next);
}

/* ------------------------------------------------------------------ kernels: m is a constant where they are inlined */

typedef __m256 sums_of_row[WB_W_ROWS];

INLINE TARGET __m128 sums_of(__m256 a, __m256 b, __m256 c, __m256 d) {
    __m256 all = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
}

INLINE TARGET void clear(sums_of_row *acc, const int m) {
#pragma GCC unroll 3
    for (int row = 0; row < m; row++)
#pragma GCC unroll 4
        for (int j = 0; j < WB_W_ROWS; j++) acc[row][j] = _mm256_setzero_ps();
}

/* The first n_w of them. */
INLINE TARGET void store_sums(sums_of_row *acc, const int m, float *sums, int n_w) {
    const __m128i inside = _mm_cmpgt_epi32(_mm_set1_epi32(n_w), _mm_set_epi32(3, 2, 1, 0));
#pragma GCC unroll 3
    for (int row = 0; row < m; row++)
        _mm_maskstore_ps(sums + row * WB_STRIP, inside, sums_of(acc[row][0], acc[row][1], acc[row][2], acc[row][3]));
}

INLINE TARGET const float *row_at(const void *rows, int64_t stride, int r) {
    return (const float *)((const char *)rows + r * stride);
}

/* acc[row][j] += w[j] . x[row] over n values */
INLINE TARGET void accumulate(sums_of_row *acc, const void *w, int64_t w_stride, const void *x, int64_t x_stride,
                              int64_t n, const int m) {
    for (int64_t k = 0; k < n; k += 8) {
        __m256 values[MAX_X_ROWS];
#pragma GCC unroll 3
        for (int row = 0; row < m; row++) values[row] = _mm256_load_ps(row_at(x, x_stride, row) + k);
#pragma GCC unroll 4
        for (int j = 0; j < WB_W_ROWS; j++) {
            __m256 weights = _mm256_load_ps(row_at(w, w_stride, j) + k);
#pragma GCC unroll 3
            for (int row = 0; row < m; row++) acc[row][j] = _mm256_fmadd_ps(weights, values[row], acc[row][j]);
        }
    }
}

INLINE TARGET void plain(const void *w, int64_t w_stride, const void *x, int64_t x_stride, int64_t n, const int m,
                         float *sums) {
    sums_of_row acc[MAX_X_ROWS];
    clear(acc, m);
    accumulate(acc, w, w_stride, x, x_stride, n, m);
    store_sums(acc, m, sums, WB_W_ROWS);
}

/* WB_W_ROWS rows; where there are only n the last one fills up. */
INLINE TARGET void packed(wb_row first, int n, int64_t n_blocks, const void *x, int64_t x_stride, const int m,
                          float *sums) {
    sums_of_row acc[MAX_X_ROWS];
    wb_row w[WB_W_ROWS];
    for (int j = 0; j < WB_W_ROWS; j++) w[j] = wb_row_after(first, j < n ? j : n - 1, n_blocks);
    clear(acc, m);
    for (int64_t block = 0; block < n_blocks; block++) {
        prefetch(first, n_blocks, block);
#pragma GCC unroll 4
        for (int j = 0; j < WB_W_ROWS; j++) {
            decoded weights = decode_block(w[j].blocks + block * WB_BLOCK_BYTES, w[j].scales[block]);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++)
#pragma GCC unroll 3
                for (int row = 0; row < m; row++) {
                    const float *values = row_at(x, x_stride, row) + block * WB_BLOCK + 8 * v;
                    acc[row][j] = _mm256_fmadd_ps(weights.vector[v], _mm256_load_ps(values), acc[row][j]);
                }
        }
    }
    store_sums(acc, m, sums, n);
}

TARGET static void dot_plain(const void *w, int64_t w_stride, const void *x, int64_t x_stride, int64_t n_groups, int m,
                             float *sums) {
    int64_t n = n_groups * WB_BLOCK;
    switch (m) {
        case 1: plain(w, w_stride, x, x_stride, n, 1, sums); break;
        case 2: plain(w, w_stride, x, x_stride, n, 2, sums); break;
        default: plain(w, w_stride, x, x_stride, n, 3, sums);
    }
}

TARGET static void dot_packed(wb_row w, int n_w, int64_t n_blocks, const void *x, int64_t x_stride, int m,
                              float *sums) {
    for (int r = 0; r < n_w; r += WB_W_ROWS, w = wb_row_after(w, WB_W_ROWS, n_blocks)) {
        int n = n_w - r < WB_W_ROWS ? n_w - r : WB_W_ROWS;
        switch (m) {
            case 1: packed(w, n, n_blocks, x, x_stride, 1, sums + r); break;
            case 2: packed(w, n, n_blocks, x, x_stride, 2, sums + r); break;
            default: packed(w, n, n_blocks, x, x_stride, 3, sums + r);
        }
    }
}

const wb_engine wb_avx2_engine = {
    .group = WB_BLOCK,
    .value_bytes = sizeof(float),
    .weight_bytes = sizeof(float),
    .max_plain_x_rows = MAX_X_ROWS,
    .max_packed_x_rows = MAX_X_ROWS,
    .max_packed_rows = 5,
    .prepare = prepare,
    .decode = decode,
    .dot_plain = dot_plain,
    .dot_packed = dot_packed,
};

/* ------------------------------------------------------------------ unpack, in natural order
 * Eight bytes, 16 weights, at a time: one vpermps over the scale's eight magnitudes gives the weights of even k (low
 * nibbles), another those of odd k, and the nibble's top bit becomes the sign. */

enum { STEP = 16, STEP_BYTES = 8, STEPS = WB_BLOCK / STEP };

INLINE TARGET __m256 magnitudes_of(uint8_t scale) {
    __m128i bf16 = _mm_load_si128((const __m128i *)wb_table[scale]); /* codes 0 to 7: the positive half */
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bf16), 16));
}

/* The weights of the codes in the lanes' low nibbles; whatever is above them is ignored. */
INLINE TARGET __m256 weights_of(__m256i codes, __m256 magnitudes) {
    const __m256i sign = _mm256_set1_epi32((int)0x80000000);
    __m256i signs = _mm256_and_si256(_mm256_slli_epi32(codes, 28), sign);
    return _mm256_xor_ps(_mm256_permutevar8x32_ps(magnitudes, codes), _mm256_castsi256_ps(signs));
}

typedef struct {
    __m256 even, odd;
} step;

INLINE TARGET step decode_step(const uint8_t *bytes, __m256 magnitudes) {
    __m256i codes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)bytes));
    return (step){weights_of(codes, magnitudes), weights_of(_mm256_srli_epi32(codes, 4), magnitudes)};
}

TARGET static void unpack_f32(const uint8_t *blocks, const uint8_t *scales, int64_t n_blocks, float *out) {
    for (int64_t block = 0; block < n_blocks; block++) {
        __m256 magnitudes = magnitudes_of(scales[block]);
        for (int i = 0; i < STEPS; i++, out += STEP) {
            step w = decode_step(blocks + block * WB_BLOCK_BYTES + i * STEP_BYTES, magnitudes);
            __m256 low = _mm256_unpacklo_ps(w.even, w.odd), high = _mm256_unpackhi_ps(w.even, w.odd);
            _mm256_storeu_ps(out, _mm256_permute2f128_ps(low, high, 0x20));
            _mm256_storeu_ps(out + 8, _mm256_permute2f128_ps(low, high, 0x31));
        }
    }
}

/* The even weight's upper half goes below the odd one's: two bf16 in the order of k. */
TARGET static void unpack_bf16(const uint8_t *blocks, const uint8_t *scales, int64_t n_blocks, uint16_t *out) {
    for (int64_t block = 0; block < n_blocks; block++) {
        __m256 magnitudes = magnitudes_of(scales[block]);
        for (int i = 0; i < STEPS; i++, out += STEP) {
            step w = decode_step(blocks + block * WB_BLOCK_BYTES + i * STEP_BYTES, magnitudes);
            __m256i even = _mm256_srli_epi32(_mm256_castps_si256(w.even), 16);
            _mm256_storeu_si256((__m256i *)out, _mm256_or_si256(even, _mm256_castps_si256(w.odd)));
        }
    }
}

TARGET void wb_unpack_avx2(const uint8_t *blocks, const uint8_t *scales, int64_t n_blocks, int dtype, void *out) {
    if (dtype == WB_BF16)
        unpack_bf16(blocks, scales, n_blocks, out);
    else
        unpack_f32(blocks, scales, n_blocks, out);
}

#endif
