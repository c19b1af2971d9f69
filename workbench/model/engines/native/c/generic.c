/* Plain C that any compiler takes. With GCC's and Clang's vector types sums stay in registers (NEON, SSE); other
 * compilers get the same loops with vectors of one lane. */
#include "internal.h"

#if defined(__GNUC__)
typedef float lanes __attribute__((vector_size(16)));
#else
typedef float lanes;
#endif

#if defined(__aarch64__)
#define MAX_X_ROWS 4 /* 16 sums, of 32 vector registers */
#else
#define MAX_X_ROWS 2
#endif

enum { LANES = sizeof(lanes) / sizeof(float) };

#if defined(__aarch64__) && defined(__ARM_NEON) && !defined(__AARCH64EB__)
#include <arm_neon.h>

/* tbl looks up bytes: the low and the high bytes of the 16 values, then both zipped to words. */
WB_INLINE void decode_block(const uint8_t *bytes, const uint16_t *table, float *out) {
    uint8x16x2_t halves = vld2q_u8((const uint8_t *)table);
    uint8x16_t both = vld1q_u8(bytes), even = vandq_u8(both, vdupq_n_u8(15)), odd = vshrq_n_u8(both, 4);
    uint8x16_t codes[2] = {vzip1q_u8(even, odd), vzip2q_u8(even, odd)};
    for (int i = 0; i < 2; i++, out += 16) {
        uint8x16_t low = vqtbl1q_u8(halves.val[0], codes[i]), high = vqtbl1q_u8(halves.val[1], codes[i]);
        uint16x8_t first = vreinterpretq_u16_u8(vzip1q_u8(low, high));
        uint16x8_t second = vreinterpretq_u16_u8(vzip2q_u8(low, high));
        vst1q_f32(out, vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(first), 16)));
        vst1q_f32(out + 4, vreinterpretq_f32_u32(vshll_high_n_u16(first, 16)));
        vst1q_f32(out + 8, vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(second), 16)));
        vst1q_f32(out + 12, vreinterpretq_f32_u32(vshll_high_n_u16(second, 16)));
    }
}
#else
WB_INLINE void decode_block(const uint8_t *bytes, const uint16_t *table, float *out) {
    for (int i = 0; i < WB_BLOCK_BYTES; i++) {
        *out++ = wb_float_of_bf16(table[bytes[i] & 15]);
        *out++ = wb_float_of_bf16(table[bytes[i] >> 4]);
    }
}
#endif

static void decode(wb_row row, int64_t n_blocks, void *out) {
    for (int64_t block = 0; block < n_blocks; block++)
        decode_block(row.blocks + block * WB_BLOCK_BYTES, wb_table[row.scales[block]], (float *)out + block * WB_BLOCK);
}

static void prepare(const void *x, int dtype, int64_t d_in, void *out) {
    if (dtype == WB_F32) {
        memcpy(out, x, (size_t)d_in * sizeof(float));
        return;
    }
    const uint16_t *from = x;
    float *to = out;
    for (int64_t i = 0; i < d_in; i++) to[i] = wb_float_of_bf16(from[i]);
}

WB_INLINE lanes load(const float *from) {
    lanes value;
    memcpy(&value, from, sizeof value);
    return value;
}

WB_INLINE float sum_of(lanes value) {
    float parts[LANES], sum = 0.0f;
    memcpy(parts, &value, sizeof value);
    for (int lane = 0; lane < LANES; lane++) sum += parts[lane];
    return sum;
}

/* m is a constant where this is inlined. */
WB_INLINE void plain(const float *w, int64_t w_floats, const float *x, int64_t x_floats, int64_t n, const int m,
                     float *sums) {
    lanes acc[MAX_X_ROWS][WB_W_ROWS];
    memset(acc, 0, sizeof acc);
    for (int64_t k = 0; k < n; k += LANES) {
        lanes weights[WB_W_ROWS];
        for (int j = 0; j < WB_W_ROWS; j++) weights[j] = load(w + j * w_floats + k);
        for (int row = 0; row < m; row++) {
            lanes values = load(x + row * x_floats + k);
            for (int j = 0; j < WB_W_ROWS; j++) acc[row][j] += weights[j] * values;
        }
    }
    for (int row = 0; row < m; row++)
        for (int j = 0; j < WB_W_ROWS; j++) sums[row * WB_STRIP + j] = sum_of(acc[row][j]);
}

static void dot_plain(const void *w, int64_t w_stride, const void *x, int64_t x_stride, int64_t n_groups, int m,
                      float *sums) {
    int64_t w_floats = w_stride / (int64_t)sizeof(float), x_floats = x_stride / (int64_t)sizeof(float);
    int row = 0;
    for (; row + MAX_X_ROWS <= m; row += MAX_X_ROWS)
        plain(w, w_floats, (const float *)x + row * x_floats, x_floats, n_groups * WB_BLOCK, MAX_X_ROWS,
              sums + row * WB_STRIP);
    for (; row < m; row++)
        plain(w, w_floats, (const float *)x + row * x_floats, x_floats, n_groups * WB_BLOCK, 1, sums + row * WB_STRIP);
}

const wb_engine wb_generic_engine = {
    .group = WB_BLOCK,
    .value_bytes = sizeof(float),
    .weight_bytes = sizeof(float),
    .max_plain_x_rows = MAX_X_ROWS,
    .max_packed_rows = 0,
    .prepare = prepare,
    .decode = decode,
    .dot_plain = dot_plain,
};

static void unpack_bf16(const uint8_t *blocks, const uint8_t *scales, int64_t n_blocks, uint16_t *out) {
    for (int64_t block = 0; block < n_blocks; block++) {
        const uint16_t *table = wb_table[scales[block]];
        for (int i = 0; i < WB_BLOCK_BYTES; i++) {
            uint8_t byte = blocks[block * WB_BLOCK_BYTES + i];
            *out++ = table[byte & 15];
            *out++ = table[byte >> 4];
        }
    }
}

void wb_unpack_generic(const uint8_t *blocks, const uint8_t *scales, int64_t n_blocks, int dtype, void *out) {
    if (dtype == WB_BF16)
        unpack_bf16(blocks, scales, n_blocks, out);
    else
        decode((wb_row){blocks, scales}, n_blocks, out);
}
