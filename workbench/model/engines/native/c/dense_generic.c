/* Rows times a plain matrix, in plain C: rows of W become fp32 piece by piece. */
#include "internal.h"

#if defined(__GNUC__)
typedef float lanes __attribute__((vector_size(16)));
#else
typedef float lanes;
#endif

#if defined(__aarch64__)
enum { MAX_X_ROWS = 4 }; /* 16 sums, of 32 vector registers */
#else
enum { MAX_X_ROWS = 2 };
#endif

enum { LANES = sizeof(lanes) / sizeof(float), PIECE = 256 };

/* fp32, with zeros behind. */
void wb_prepare_f32(const void *x, int dtype, int64_t d_in, void *out) {
    float *to = out;
    memset(to + d_in, 0, (size_t)(wb_dense_padded(d_in) - d_in) * sizeof(float));
    if (dtype == WB_F32) {
        memcpy(to, x, (size_t)d_in * sizeof(float));
        return;
    }
    for (int64_t k = 0; k < d_in; k++) to[k] = wb_float_of_bf16(((const uint16_t *)x)[k]);
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

/* n weights from number k of a row on, in fp32, padded with zeros. */
WB_INLINE void load_piece(const char *row, int dtype, int64_t k, int64_t n, float *out) {
    const char *from = row + k * (dtype == WB_F32 ? 4 : 2);
    wb_prepare_f32(from, dtype, n, out);
}

/* m and dtype are constants where this is inlined. */
WB_INLINE void multiply(wb_dense_tile tile, int64_t d_in, const int m, const int dtype, float *sums) {
    lanes acc[MAX_X_ROWS][WB_W_ROWS];
    float piece[WB_W_ROWS][PIECE];
    memset(acc, 0, sizeof acc);
    for (int64_t k = 0; k < d_in; k += PIECE) {
        int64_t n = wb_min(PIECE, d_in - k);
        for (int r = 0; r < WB_W_ROWS; r++) load_piece(tile.w + r * tile.w_stride, dtype, k, n, piece[r]);
        for (int64_t i = 0; i < wb_dense_padded(n); i += LANES)
            for (int row = 0; row < m; row++) {
                lanes values = load((const float *)(const void *)(tile.x + row * tile.x_stride) + k + i);
                for (int r = 0; r < WB_W_ROWS; r++) acc[row][r] += load(piece[r] + i) * values;
            }
    }
    for (int row = 0; row < m; row++)
        for (int r = 0; r < WB_W_ROWS; r++) sums[row * WB_STRIP + r] = sum_of(acc[row][r]);
}

#define KERNEL(NAME, DTYPE, M)                                                      \
    static void NAME##_##M(wb_dense_tile tile, int64_t d_in, float *sums) {         \
        multiply(tile, d_in, M, DTYPE, sums);                                       \
    }
#define KERNELS(NAME, DTYPE) KERNEL(NAME, DTYPE, 1) KERNEL(NAME, DTYPE, 2)
KERNELS(f32, WB_F32)
KERNELS(bf16, WB_BF16)

#if defined(__aarch64__)
#undef KERNELS
#define KERNELS(NAME, DTYPE) KERNEL(NAME, DTYPE, 3) KERNEL(NAME, DTYPE, 4)
KERNELS(f32, WB_F32)
KERNELS(bf16, WB_BF16)
#define KERNELS_OF(NAME) {NAME##_1, NAME##_2, NAME##_3, NAME##_4}
#else
#define KERNELS_OF(NAME) {NAME##_1, NAME##_2}
#endif

const wb_dense_engine wb_dense_generic_f32 = {
    .in_place = WB_NEVER, .value_bytes = 4, .prepare = wb_prepare_f32,
    .max_x_rows = MAX_X_ROWS, .kernels = KERNELS_OF(f32),
};
const wb_dense_engine wb_dense_generic_bf16 = {
    .in_place = WB_NEVER, .value_bytes = 4, .prepare = wb_prepare_f32,
    .max_x_rows = MAX_X_ROWS, .kernels = KERNELS_OF(bf16),
};
