/* What the files of the native engine share. */
#ifndef WB_INTERNAL_H
#define WB_INTERNAL_H

#include "native.h"

#include <string.h>

#define WB_BLOCK 32       /* values in a block */
#define WB_BLOCK_BYTES 16 /* their bytes */
#define WB_W_ROWS 4       /* rows of W that one kernel call multiplies */
#define WB_STRIP 64       /* rows of W that a task works on at a time at most; sums are [x row][WB_STRIP] */
#define WB_MAX_X_ROWS 6   /* rows of x that a kernel call takes at most */

#if defined(__x86_64__) && defined(__GNUC__) && (defined(__clang__) || __GNUC__ >= 10) && !defined(WB_GENERIC_ONLY)
#define WB_X86 1
#else
#define WB_X86 0
#endif

#if defined(__GNUC__)
#define WB_INLINE static inline __attribute__((always_inline))
#define WB_ALIGNED64 __attribute__((aligned(64)))
#define WB_PREFETCH(address) __builtin_prefetch((const void *)(address))
#define WB_PREFETCH_FAR(address) __builtin_prefetch((const void *)(address), 0, 2) /* not into the first-level cache */
#else
#define WB_INLINE static inline
#define WB_ALIGNED64
#define WB_PREFETCH(address) (void)(address)
#define WB_PREFETCH_FAR(address) (void)(address)
#endif

/* The bf16 bits of every (scale, code); rows of 32 bytes, so that one vector load fetches a scale's 16 values. */
extern const uint16_t wb_table[256][16];
/* The same, a scale's 16 low bytes before its 16 high bytes. */
extern const uint8_t wb_byte_table[256][32];

/* ------------------------------------------------------------------ packed matrices */

/* One row of a packed matrix. */
typedef struct {
    const uint8_t *blocks;
    const uint8_t *scales;
} wb_row;

WB_INLINE wb_row wb_row_after(wb_row row, int64_t rows, int64_t n_blocks) {
    return (wb_row){row.blocks + rows * n_blocks * WB_BLOCK_BYTES, row.scales + rows * n_blocks};
}

/* A way to multiply. Rows of x are first *prepared*: brought into the engine's dtype and into the order in which it
 * decodes weights (a sum does not mind the order), padded with zeros to whole groups.
 *
 * dot_plain multiplies WB_W_ROWS decoded rows of W, dot_packed the n_w, at most WB_STRIP, that lie one behind the other
 * from w on, with m rows of x: sums[x row * WB_STRIP + W row]. */
typedef struct {
    int64_t group;        /* values in a group: prepared rows are whole groups */
    int64_t value_bytes;  /* of a prepared value of x */
    int64_t weight_bytes; /* of a decoded weight */
    int max_plain_x_rows, max_packed_x_rows; /* of a kernel call */
    int max_packed_rows; /* up to so many rows of x an expert, dot_packed is faster than decode + dot_plain */
    void (*prepare)(const void *x, int dtype, int64_t d_in, void *out);
    void (*decode)(wb_row row, int64_t n_blocks, void *out);
    void (*dot_plain)(const void *w, int64_t w_stride, const void *x, int64_t x_stride, int64_t n_groups, int m,
                      float *sums);
    void (*dot_packed)(wb_row w, int n_w, int64_t n_blocks, const void *x, int64_t x_stride, int m, float *sums);
    /* Where dot_* is not exact enough (see inexact): one product the slow, exact way. NULL, NULL where they are. */
    int (*inexact)(wb_row row, int64_t n_blocks);
    float (*dot_exact)(wb_row row, int64_t n_blocks, const void *x);
} wb_engine;

extern const wb_engine wb_generic_engine;
#if WB_X86
extern const wb_engine wb_avx2_engine, wb_avx512_engine, wb_avx512_bf16_engine;
#endif

typedef void (*wb_unpack_fn)(const uint8_t *blocks, const uint8_t *scales, int64_t n_blocks, int dtype, void *out);
void wb_unpack_generic(const uint8_t *blocks, const uint8_t *scales, int64_t n_blocks, int dtype, void *out);
#if WB_X86
void wb_unpack_avx2(const uint8_t *blocks, const uint8_t *scales, int64_t n_blocks, int dtype, void *out);
void wb_unpack_avx512(const uint8_t *blocks, const uint8_t *scales, int64_t n_blocks, int dtype, void *out);
#endif

/* ------------------------------------------------------------------ dense matrices */

#define WB_DENSE_GROUP 64 /* values: prepared rows of x are padded with zeros to whole groups */

static inline int64_t wb_dense_padded(int64_t n) { return (n + WB_DENSE_GROUP - 1) / WB_DENSE_GROUP * WB_DENSE_GROUP; }

/* Where a kernel reads, in bytes. Rows of W may lie on each other (w_stride 0). */
typedef struct {
    const char *w, *x;
    int64_t w_stride, x_stride;
    int64_t ahead; /* from w on, what is to be fetched meanwhile: as much as the kernel reads of W */
} wb_dense_tile;

/* Multiplies WB_W_ROWS rows of W with a number of rows of x that is its own: sums[x row * WB_STRIP + W row]. */
typedef void (*wb_dense_kernel)(wb_dense_tile tile, int64_t d_in, float *sums);

/* A way to multiply x with W, whose dtype it is for. */
typedef struct {
    int in_place;        /* the dtype of x that is read as it lies; rows of others are prepared */
    int64_t value_bytes; /* of a prepared value of x */
    void (*prepare)(const void *x, int dtype, int64_t d_in, void *out);
    int max_x_rows;
    wb_dense_kernel kernels[WB_MAX_X_ROWS]; /* for 1 to max_x_rows rows of x */
} wb_dense_engine;

enum { WB_NEVER = -1 }; /* in_place */

/* dense_generic.c: fp32, in order */
void wb_prepare_f32(const void *x, int dtype, int64_t d_in, void *out);

extern const wb_dense_engine wb_dense_generic_f32, wb_dense_generic_bf16;
#if WB_X86
extern const wb_dense_engine wb_dense_avx2_f32, wb_dense_avx2_bf16, wb_dense_avx512_f32, wb_dense_avx512_wide,
    wb_dense_avx512_bf16;
#endif

/* ------------------------------------------------------------------ what both need */

/* An expert that has rows. */
typedef struct {
    int64_t expert, first_row, n_rows;
} wb_group;

/* groups.c; counts are int64 [n_experts] */
int64_t wb_count_groups(const void *counts, int64_t n_experts);
void wb_list_groups(const void *counts, int64_t n_experts, wb_group *groups);

/* isa.c */
int wb_resolve_isa(int64_t isa); /* AUTO -> the best; WB_ISA_COUNT where it cannot be had */

/* pool.c: one call at a time; tasks are handed out one by one to the caller and up to threads - 1 workers. */
typedef void (*wb_task)(void *context, int64_t task, int worker);
void wb_lock(void);
void wb_unlock(void);
void wb_parallel(int threads, int64_t n_tasks, wb_task run, void *context);

/* scratch.c: memory aligned to 64 bytes, kept from call to call; only between wb_lock and wb_unlock. */
void *wb_scratch(int64_t bytes);
void wb_scratch_done(void);

/* write.c */
void wb_load_bias(const void *bias, int64_t dtype, int64_t first, int n, float *out);
void wb_write_row(void *y, int64_t at, int64_t dtype, float *sums, const float *bias, wb_bias_order order, int n);

WB_INLINE int64_t wb_min(int64_t a, int64_t b) { return a < b ? a : b; }
WB_INLINE int64_t wb_max(int64_t a, int64_t b) { return a > b ? a : b; }

/* Bytes of a row of whole groups; an odd number of cache lines, so that rows do not fall on each other in the cache. */
WB_INLINE int64_t wb_row_bytes(int64_t bytes) { return ((bytes + 63) / 64 | 1) * 64; }

WB_INLINE float wb_float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

WB_INLINE float wb_float_of_bf16(uint16_t bits) { return wb_float_of_bits((uint32_t)bits << 16); }

/* Nearest even; a NaN stays a NaN though its low bits are lost. */
WB_INLINE uint16_t wb_bf16_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t nearest = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16, nan = (bits >> 16) | 0x40u;
    return (uint16_t)((bits & 0x7FFFFFFFu) > 0x7F800000u ? nan : nearest);
}

#endif
