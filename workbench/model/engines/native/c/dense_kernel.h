/* The loops of a product with a plain matrix, which all vector instruction sets and dtypes share.
 *
 * A file that includes this has the type `sum`, sum zero(), and void store_four(sum, sum, sum, sum, float *); and for each
 * KIND of weights and x:
 *   step_KIND                                 numbers at a time
 *   w_bytes_KIND, x_bytes_KIND                their bytes
 *   load_w_KIND(at), load_x_KIND(at)          so many weights, so much of x
 *   some_w_KIND(at, n), some_x_KIND(at, n)    the first n of them, with zeros behind
 *   add_KIND(sum, w, x)                       the sum with their products
 */
#ifndef WB_DENSE_KERNEL_H
#define WB_DENSE_KERNEL_H

#include "internal.h"

#define UNROLL _Pragma("GCC unroll 6")

#define STEP(KIND, M, AT_X, AT_W)                                                                                \
    do {                                                                                                         \
        x_##KIND values[M];                                                                                      \
        UNROLL for (int row = 0; row < M; row++) {                                                               \
            const char *x = tile.x + row * tile.x_stride + v * x_bytes_##KIND;                                   \
            values[row] = AT_X;                                                                                  \
        }                                                                                                        \
        UNROLL for (int r = 0; r < WB_W_ROWS; r++) {                                                             \
            const char *w = tile.w + r * tile.w_stride + v * w_bytes_##KIND;                                     \
            w_##KIND weights = AT_W;                                                                             \
            /* Not into the first-level cache, where x is. */                                                    \
            WB_PREFETCH_FAR((uintptr_t)tile.w + (uintptr_t)(tile.ahead + (v * WB_W_ROWS + r) * w_bytes_##KIND)); \
            UNROLL for (int row = 0; row < M; row++) acc[row][r] = add_##KIND(acc[row][r], weights, values[row]); \
        }                                                                                                        \
    } while (0)

/* The kernel for M rows of x: all its sums live in registers. A sum is made in the same order whatever M is. */
#define KERNEL(KIND, TARGET, M)                                                                            \
    TARGET static void KIND##_##M(wb_dense_tile tile, int64_t d_in, float *sums) {                         \
        sum acc[M][WB_W_ROWS];                                                                             \
        int64_t n_steps = d_in / step_##KIND, v = 0;                                                       \
        int rest = (int)(d_in % step_##KIND);                                                              \
        UNROLL for (int row = 0; row < M; row++)                                                           \
            UNROLL for (int r = 0; r < WB_W_ROWS; r++) acc[row][r] = zero();                               \
        for (; v < n_steps; v++) STEP(KIND, M, load_x_##KIND(x), load_w_##KIND(w));                        \
        if (rest) STEP(KIND, M, some_x_##KIND(x, rest), some_w_##KIND(w, rest));                           \
        UNROLL for (int row = 0; row < M; row++)                                                           \
            store_four(acc[row][0], acc[row][1], acc[row][2], acc[row][3], sums + row * WB_STRIP);         \
    }

#define KERNELS_TO_2(KIND, TARGET) KERNEL(KIND, TARGET, 1) KERNEL(KIND, TARGET, 2)
#define KERNELS_TO_4(KIND, TARGET) KERNELS_TO_2(KIND, TARGET) KERNEL(KIND, TARGET, 3) KERNEL(KIND, TARGET, 4)
#define KERNELS_TO_6(KIND, TARGET) KERNELS_TO_4(KIND, TARGET) KERNEL(KIND, TARGET, 5) KERNEL(KIND, TARGET, 6)

/* x becomes fp32; of every 2 * lanes numbers the even ones, then the odd ones: in the order in which a vector of bf16
 * weights gives floats. Zeros behind. */
static inline void wb_prepare_even_odd(const void *x, int dtype, int64_t d_in, void *out, const int64_t lanes) {
    float *to = out;
    memset(out, 0, (size_t)wb_dense_padded(d_in) * sizeof(float));
    for (int64_t k = 0; k < d_in; k++)
        to[k / (2 * lanes) * (2 * lanes) + k % 2 * lanes + k % (2 * lanes) / 2] =
            dtype == WB_F32 ? ((const float *)x)[k] : wb_float_of_bf16(((const uint16_t *)x)[k]);
}

#endif
