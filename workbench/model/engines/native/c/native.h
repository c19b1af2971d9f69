/* The native engine: products with packed MXFP4 experts and with plain matrices. Plain C ABI, no dependency but
 * libc and (on POSIX) pthreads; 64-bit machines.
 *
 * MXFP4 (OCP Microscaling Formats v1.0): 32 FP4 (E2M1) values a block, 16 bytes, low nibble first, and one scale byte
 * s = 2^(s - 127), 255 = NaN. A weight is value * 2^(s - 127), rounded to bfloat16 (exact wherever finite).
 *
 * Every function checks every size, pointer and count before it touches memory and returns a wb_status.
 */
#ifndef WB_NATIVE_H
#define WB_NATIVE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define WB_API __declspec(dllexport)
#elif defined(__GNUC__)
#define WB_API __attribute__((visibility("default")))
#else
#define WB_API
#endif

#define WB_ABI_VERSION 3
#define WB_MAX_THREADS 256

typedef enum { WB_F32 = 0, WB_BF16 = 1 } wb_dtype;

/* How a bias joins a sum: before the only rounding, or after one, to be rounded again. */
typedef enum { WB_BIAS_FUSED = 0, WB_BIAS_AFTER = 1 } wb_bias_order;

typedef enum {
    WB_ISA_AUTO = 0, /* the best one of this machine */
    WB_ISA_GENERIC = 1,
    WB_ISA_AVX2 = 2,        /* with FMA */
    WB_ISA_AVX512 = 3,      /* F, BW, VL, DQ */
    WB_ISA_AVX512_BF16 = 4, /* and vdpbf16ps */
    WB_ISA_COUNT
} wb_isa;

typedef enum {
    WB_OK = 0,
    WB_E_NULL,      /* a pointer is missing */
    WB_E_DTYPE,     /* neither WB_F32 nor WB_BF16 */
    WB_E_SIZE,      /* a size is negative, zero where it may not be, or absurd */
    WB_E_COLUMNS,   /* d_in is no multiple of 32 */
    WB_E_BOUNDS,    /* a buffer is smaller than its shape */
    WB_E_STRIDE,    /* experts or rows overlap */
    WB_E_COUNTS,    /* a count is negative, or they do not add up to n_rows */
    WB_E_ALIGNMENT, /* a pointer to bf16 or fp32 values is not a multiple of their size */
    WB_E_OVERLAP,   /* the output shares memory with an input */
    WB_E_ISA,       /* not on this machine, or not in this build */
    WB_E_THREADS,   /* not in 1..WB_MAX_THREADS */
    WB_E_MEMORY,    /* no memory for scratch */
    WB_E_VERSION,   /* struct_bytes is another version's */
    WB_E_ORDER,     /* neither WB_BIAS_FUSED nor WB_BIAS_AFTER */
    WB_STATUS_COUNT
} wb_status;

/* Memory and its size, so that every access can be checked against it. */
typedef struct {
    const void *data;
    int64_t bytes;
} wb_buffer;

typedef struct {
    void *data;
    int64_t bytes;
} wb_output;

/* y[row] = x[row] . W[expert of row]^T + b[expert of row], rows sorted by expert. All fields have eight bytes. */
typedef struct {
    int64_t struct_bytes; /* sizeof(wb_grouped_linear_args) */
    int64_t n_experts, n_rows, d_in, d_out;
    wb_buffer counts;        /* int64 [n_experts]: rows of each expert */
    wb_buffer x;             /* x_dtype [n_rows, d_in] */
    wb_buffer blocks;        /* uint8 [n_experts, d_out, d_in / 32, 16], any alignment */
    wb_buffer scales;        /* uint8 [n_experts, d_out, d_in / 32] */
    int64_t blocks_stride;   /* bytes from one expert to the next; each expert's own bytes are contiguous */
    int64_t scales_stride;
    wb_buffer bias;          /* bias_dtype [n_experts, d_out], or no data: no bias */
    wb_output y;             /* x_dtype [n_rows, d_out] */
    int64_t x_dtype, bias_dtype;
    int64_t isa, threads;
} wb_grouped_linear_args;

/* The same with plain matrices, of experts or (n_experts 1) of one linear layer. */
typedef struct {
    int64_t struct_bytes; /* sizeof(wb_dense_linear_args) */
    int64_t n_experts, n_rows, d_in, d_out;
    wb_buffer counts;       /* int64 [n_experts]: rows of each expert */
    wb_buffer x;            /* x_dtype [n_rows, d_in] */
    wb_buffer weight;       /* w_dtype [n_experts, d_out, d_in] */
    int64_t expert_stride;  /* bytes from one expert to the next, and from one row of the weight to the next: */
    int64_t row_stride;     /* multiples of a number's size */
    wb_buffer bias;         /* bias_dtype [n_experts, d_out], or no data: no bias */
    wb_output y;            /* x_dtype [n_rows, d_out] */
    int64_t x_dtype, w_dtype, bias_dtype;
    int64_t bias_order;     /* a wb_bias_order */
    int64_t isa, threads;
} wb_dense_linear_args;

WB_API int32_t wb_abi_version(void);

/* A digest of the sources that this library was built from, or "" where its builder gave none. */
WB_API const char *wb_source_digest(void);
WB_API const char *wb_strerror(int32_t status);

/* The best instruction set of this machine that this build has code for; wb_isa_supported says it of one. */
WB_API int32_t wb_isa_best(void);
WB_API int32_t wb_isa_supported(int32_t isa);
WB_API const char *wb_isa_name(int32_t isa);

/* blocks uint8 [n_blocks, 16], scales uint8 [n_blocks] -> out dtype [n_blocks, 32]. Total: NaN, inf and subnormals. */
WB_API int32_t wb_mxfp4_unpack(wb_buffer blocks, wb_buffer scales, int64_t n_blocks, wb_output out, int32_t dtype,
                               int32_t isa, int32_t threads);

/* Products are summed in fp32 and rounded to x_dtype (nearest even); then the bias is added, and in bf16 the sum is
 * rounded again: F.linear(x, W) + b, as gpt-oss' references have it.
 * bf16 products may treat a bf16 x below 2^-126 as zero where the weights' scales are not extreme. */
WB_API int32_t wb_mxfp4_grouped_linear(const wb_grouped_linear_args *args);

/* Products are summed in fp32. WB_BIAS_FUSED: the bias is added in fp32 and the sum rounded once to x_dtype, F.linear(x,
 * W, b), as torch has it. WB_BIAS_AFTER: rounded, the bias added, and rounded again, F.linear(x, W) + b, as above.
 * bf16 products may treat bf16 numbers below 2^-126 as zero, as torch's may. */
WB_API int32_t wb_dense_linear(const wb_dense_linear_args *args);

/* Let calls run on the program's own team of threads. A second pool beside an OpenMP one is slow: OpenMP's workers spin
 * for milliseconds after each of their loops, on the core that ours would need. run calls member(context) on each of
 * `threads` threads (GOMP_parallel does); size says how many threads the team has (omp_get_max_threads does). Calls with
 * another number of threads, and forked children, which the team does not survive, use the library's own pool.
 * NULL, NULL: always the own pool. */
typedef void (*wb_team_run)(void (*member)(void *context), void *context, unsigned threads, unsigned flags);
typedef int (*wb_team_size)(void);
WB_API void wb_use_team(wb_team_run run, wb_team_size size);

/* Give back the scratch memory that calls keep for each other. */
WB_API void wb_release_scratch(void);

#endif
