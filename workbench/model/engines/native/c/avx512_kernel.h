/* The loops of a product with a packed matrix, which both AVX-512 engines share.
 *
 * A file that includes this has KERNEL_TARGET, what it is compiled for; MAX_PLAIN_X_ROWS, 5 or 6; and, inlined:
 *   plain(w, w_stride, x, x_stride, n_groups, m, sums)   dot_plain of wb_engine, for a constant m
 *   add_group(acc, j, w, g, x, x_stride, m)              the products of group g, of row j of W, added to its sums
 */
#ifndef WB_AVX512_KERNEL_H
#define WB_AVX512_KERNEL_H

#include "avx512.h"

/* Rows are told apart by a stride, not by pointers: those would not fit into the registers. With stride 0, where fewer
 * than WB_W_ROWS are left, one row stands for all. */
INLINE KERNEL_TARGET void packed(wb_row row, int n_w, int64_t n_blocks, const void *x, int64_t x_stride, const int m,
                                 float *sums) {
    int64_t n_groups = n_blocks / GROUP_BLOCKS;
    int rest = (int)(n_blocks % GROUP_BLOCKS), n = WB_W_ROWS;
    for (int r = 0; r < n_w; r += n, row = wb_row_after(row, n, n_blocks)) {
        sums_of_row acc[WB_MAX_X_ROWS];
        clear(acc, m);
        if (n_w - r < WB_W_ROWS) n = 1;
        int64_t stride = n == 1 ? 0 : n_blocks;
        for (int64_t g = 0; g < n_groups; g++) {
            prefetch_lines(row, n_blocks, g, WB_W_ROWS);
#pragma GCC unroll 4
            for (int j = 0; j < WB_W_ROWS; j++)
                add_group(acc, j, decode_group(wb_row_after(row, j, stride), g), g, x, x_stride, m);
        }
        if (rest)
#pragma GCC unroll 4
            for (int j = 0; j < WB_W_ROWS; j++)
                add_group(acc, j, decode_rest(wb_row_after(row, j, stride), n_groups, rest), n_groups, x, x_stride, m);
        store_sums(acc, m, sums + r, n);
    }
}

/* A function for each m: one for all would be too much for the compiler's register allocation. */
#define PLAIN_OF(M)                                                                                               \
    KERNEL_TARGET static void plain_##M(const void *w, int64_t w_stride, const void *x, int64_t x_stride,         \
                                        int64_t n_groups, float *sums) {                                          \
        plain(w, w_stride, x, x_stride, n_groups, M, sums);                                                       \
    }
#define PACKED_OF(M)                                                                                              \
    KERNEL_TARGET static void packed_##M(wb_row row, int n_w, int64_t n_blocks, const void *x, int64_t x_stride,  \
                                         float *sums) {                                                           \
        packed(row, n_w, n_blocks, x, x_stride, M, sums);                                                         \
    }
PLAIN_OF(1)
PLAIN_OF(2)
PLAIN_OF(3)
PLAIN_OF(4)
PLAIN_OF(5)
#if MAX_PLAIN_X_ROWS > 5
PLAIN_OF(6)
#endif
PACKED_OF(1)
PACKED_OF(2)
PACKED_OF(3)
PACKED_OF(4)
enum { MAX_PACKED_X_ROWS = 4 };

static void dot_plain(const void *w, int64_t w_stride, const void *x, int64_t x_stride, int64_t n_groups, int m,
                      float *sums) {
    switch (m) {
        case 1: plain_1(w, w_stride, x, x_stride, n_groups, sums); break;
        case 2: plain_2(w, w_stride, x, x_stride, n_groups, sums); break;
        case 3: plain_3(w, w_stride, x, x_stride, n_groups, sums); break;
        case 4: plain_4(w, w_stride, x, x_stride, n_groups, sums); break;
#if MAX_PLAIN_X_ROWS > 5
        case 5: plain_5(w, w_stride, x, x_stride, n_groups, sums); break;
        default: plain_6(w, w_stride, x, x_stride, n_groups, sums);
#else
        default: plain_5(w, w_stride, x, x_stride, n_groups, sums);
#endif
    }
}

static void dot_packed(wb_row row, int n_w, int64_t n_blocks, const void *x, int64_t x_stride, int m, float *sums) {
    switch (m) {
        case 1: packed_1(row, n_w, n_blocks, x, x_stride, sums); break;
        case 2: packed_2(row, n_w, n_blocks, x, x_stride, sums); break;
        case 3: packed_3(row, n_w, n_blocks, x, x_stride, sums); break;
        default: packed_4(row, n_w, n_blocks, x, x_stride, sums);
    }
}

#endif
