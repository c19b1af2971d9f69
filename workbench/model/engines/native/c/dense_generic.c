/* A few rows times a dense bf16 matrix, in plain C: rows of W become fp32 piece by piece. */
#include "internal.h"

#if defined(__GNUC__)
typedef float lanes __attribute__((vector_size(16)));
#else
typedef float lanes;
#endif

enum { LANES = sizeof(lanes) / sizeof(float), CHAINS = 4, PIECE = 256 };

static void prepare(const void *x, int dtype, int64_t d_in, void *out) {
    float *to = out;
    memset(out, 0, (size_t)wb_dense_padded(d_in) * sizeof(float));
    for (int64_t k = 0; k < d_in; k++)
        to[k] = dtype == WB_F32 ? ((const float *)x)[k] : wb_float_of_bf16(((const uint16_t *)x)[k]);
}

WB_INLINE lanes load(const float *from) {
    lanes value;
    memcpy(&value, from, sizeof value);
    return value;
}

/* acc += w . x over n values, a multiple of CHAINS * LANES: every chain has its own sums. */
static void accumulate(const float *w, const float *x, int64_t n, lanes *acc) {
    lanes sums[CHAINS];
    memcpy(sums, acc, sizeof sums);
    for (int64_t k = 0; k < n; k += CHAINS * LANES)
        for (int chain = 0; chain < CHAINS; chain++)
            sums[chain] += load(w + k + chain * LANES) * load(x + k + chain * LANES);
    memcpy(acc, sums, sizeof sums);
}

static float sum_of(const lanes *acc) {
    float parts[CHAINS * LANES], sum = 0.0f;
    memcpy(parts, acc, sizeof parts);
    for (int i = 0; i < CHAINS * LANES; i++) sum += parts[i];
    return sum;
}

static void dot(const char *w, int64_t w_stride, int n_w, int64_t d_in, const void *x, int64_t x_stride, int m,
                float *sums) {
    float piece[PIECE] = {0};
    for (int r = 0; r < n_w; r++, w += w_stride) {
        lanes acc[WB_DENSE_MAX_X_ROWS][CHAINS];
        memset(acc, 0, sizeof acc);
        for (int64_t k = 0; k < d_in; k += PIECE) {
            int64_t n = wb_min(PIECE, d_in - k), padded = wb_dense_padded(n);
            const uint16_t *from = (const uint16_t *)w + k;
            for (int64_t i = 0; i < n; i++) piece[i] = wb_float_of_bf16(from[i]);
            for (int64_t i = n; i < padded; i++) piece[i] = 0.0f;
            for (int row = 0; row < m; row++)
                accumulate(piece, (const float *)((const char *)x + row * x_stride) + k, padded, acc[row]);
        }
        for (int row = 0; row < m; row++) sums[row * WB_STRIP + r] = sum_of(acc[row]);
    }
}

const wb_dense_engine wb_dense_generic = {.value_bytes = sizeof(float), .prepare = prepare, .dot = dot};
