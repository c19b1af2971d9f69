/* Every argument is checked here, once; what follows may trust sizes, counts and pointers. */
#include "check.h"

#define MAX_SIDE ((int64_t)1 << 24)   /* of a matrix */
#define MAX_EXPERTS ((int64_t)1 << 20)
#define MAX_ROWS ((int64_t)1 << 32)

#if !defined(WB_SOURCE_DIGEST)
#define WB_SOURCE_DIGEST ""
#endif

_Static_assert(sizeof(void *) == 8, "the arguments' structs need 64-bit pointers");

const char *wb_strerror(int32_t status) {
    static const char *const messages[WB_STATUS_COUNT] = {
        "fine",
        "a pointer is missing",
        "dtype is neither float32 nor bfloat16",
        "a size is negative, too large, or zero where it may not be",
        "d_in is not a multiple of 32",
        "a buffer is smaller than its shape needs",
        "a stride is smaller than what it steps over",
        "the counts are negative or do not add up to the number of rows",
        "a pointer to numbers is not aligned to their size",
        "the output shares memory with an input",
        "the instruction set is not in this machine or this build",
        "the number of threads is not in 1..256",
        "out of memory for scratch",
        "the caller was written for another version of this library",
        "the order of bias and rounding is none of the two",
    };
    return status >= 0 && status < WB_STATUS_COUNT ? messages[status] : "unknown status";
}

int32_t wb_abi_version(void) { return WB_ABI_VERSION; }

const char *wb_source_digest(void) { return WB_SOURCE_DIGEST; }

int64_t wb_value_bytes(int64_t dtype) { return dtype == WB_BF16 ? 2 : 4; }

static int is_dtype(int64_t dtype) { return dtype == WB_F32 || dtype == WB_BF16; }

static int is_side(int64_t n) { return n > 0 && n <= MAX_SIDE; }

/* Memory for `bytes` bytes at a multiple of `alignment`. */
static int32_t holds(const void *data, int64_t given, int64_t bytes, int64_t alignment) {
    if (bytes == 0) return WB_OK;
    if (data == NULL) return WB_E_NULL;
    if (given < bytes || (uintptr_t)data > UINTPTR_MAX - (uintptr_t)given) return WB_E_BOUNDS;
    return (uintptr_t)data % (uintptr_t)alignment ? WB_E_ALIGNMENT : WB_OK;
}

static int overlap(wb_output a, wb_buffer b) {
    uintptr_t a_start = (uintptr_t)a.data, b_start = (uintptr_t)b.data;
    if (a.data == NULL || b.data == NULL || a.bytes <= 0 || b.bytes <= 0) return 0;
    return a_start < b_start + (uintptr_t)b.bytes && b_start < a_start + (uintptr_t)a.bytes;
}

static int32_t check_machine(int64_t isa, int64_t threads) {
    if (wb_resolve_isa(isa) == WB_ISA_COUNT) return WB_E_ISA;
    return threads < 1 || threads > WB_MAX_THREADS ? WB_E_THREADS : WB_OK;
}

int32_t wb_check_unpack(wb_buffer blocks, wb_buffer scales, int64_t n_blocks, wb_output out, int32_t dtype,
                        int32_t isa, int32_t threads) {
    if (!is_dtype(dtype)) return WB_E_DTYPE;
    if (n_blocks < 0 || n_blocks > MAX_EXPERTS * MAX_SIDE) return WB_E_SIZE;
    int64_t size = wb_value_bytes(dtype);
    int32_t status = check_machine(isa, threads);
    if (!status) status = holds(blocks.data, blocks.bytes, n_blocks * WB_BLOCK_BYTES, 1);
    if (!status) status = holds(scales.data, scales.bytes, n_blocks, 1);
    if (!status) status = holds(out.data, out.bytes, n_blocks * WB_BLOCK * size, size);
    if (status || n_blocks == 0) return status;
    return overlap(out, blocks) || overlap(out, scales) ? WB_E_OVERLAP : WB_OK;
}

/* A tensor whose experts lie `stride` bytes apart, its numbers at multiples of `alignment`. */
static int32_t check_experts(wb_buffer buffer, int64_t n_experts, int64_t stride, int64_t expert_bytes,
                             int64_t alignment) {
    if (n_experts > 1 && stride < expert_bytes) return WB_E_STRIDE;
    int32_t status = holds(buffer.data, buffer.bytes, expert_bytes, alignment);
    if (status || n_experts == 1) return status;
    if (stride % alignment) return WB_E_ALIGNMENT;
    return (buffer.bytes - expert_bytes) / (n_experts - 1) < stride ? WB_E_BOUNDS : WB_OK;
}

static int32_t check_counts(wb_buffer buffer, int64_t n_experts, int64_t n_rows) {
    int32_t status = holds(buffer.data, buffer.bytes, n_experts * 8, 8);
    if (status) return status;
    const int64_t *counts = buffer.data;
    int64_t left = n_rows;
    for (int64_t expert = 0; expert < n_experts; expert++) {
        if (counts[expert] < 0 || counts[expert] > left) return WB_E_COUNTS;
        left -= counts[expert];
    }
    return left ? WB_E_COUNTS : WB_OK;
}

static int32_t check_sizes(const wb_grouped_linear_args *args) {
    if (args->struct_bytes != (int64_t)sizeof *args) return WB_E_VERSION;
    if (!is_dtype(args->x_dtype) || (args->bias.data && !is_dtype(args->bias_dtype))) return WB_E_DTYPE;
    if (!is_side(args->d_in) || !is_side(args->d_out) || args->n_rows < 0 || args->n_rows > MAX_ROWS) return WB_E_SIZE;
    if (args->n_experts < 1 || args->n_experts > MAX_EXPERTS) return WB_E_SIZE;
    return args->d_in % WB_BLOCK ? WB_E_COLUMNS : check_machine(args->isa, args->threads);
}

static int32_t check_buffers(const wb_grouped_linear_args *args) {
    int64_t size = wb_value_bytes(args->x_dtype), bias_size = wb_value_bytes(args->bias_dtype);
    int64_t blocks = args->d_out * (args->d_in / WB_BLOCK);
    int32_t status = check_experts(args->blocks, args->n_experts, args->blocks_stride, blocks * WB_BLOCK_BYTES, 1);
    if (!status) status = check_experts(args->scales, args->n_experts, args->scales_stride, blocks, 1);
    if (!status) status = holds(args->x.data, args->x.bytes, args->n_rows * args->d_in * size, size);
    if (!status) status = holds(args->y.data, args->y.bytes, args->n_rows * args->d_out * size, size);
    if (status || args->bias.data == NULL) return status;
    return holds(args->bias.data, args->bias.bytes, args->n_experts * args->d_out * bias_size, bias_size);
}

int32_t wb_check_grouped_linear(const wb_grouped_linear_args *args) {
    if (args == NULL) return WB_E_NULL;
    int32_t status = check_sizes(args);
    if (!status) status = check_counts(args->counts, args->n_experts, args->n_rows);
    if (!status) status = check_buffers(args);
    if (status || args->n_rows == 0) return status;
    int shared = overlap(args->y, args->x) || overlap(args->y, args->blocks) || overlap(args->y, args->scales) ||
                 overlap(args->y, args->bias) || overlap(args->y, args->counts);
    return shared ? WB_E_OVERLAP : WB_OK;
}

static int32_t check_dense_sizes(const wb_dense_linear_args *args) {
    if (args->struct_bytes != (int64_t)sizeof *args) return WB_E_VERSION;
    if (!is_dtype(args->x_dtype) || !is_dtype(args->w_dtype)) return WB_E_DTYPE;
    if (args->bias.data && !is_dtype(args->bias_dtype)) return WB_E_DTYPE;
    if (args->bias_order != WB_BIAS_FUSED && args->bias_order != WB_BIAS_AFTER) return WB_E_ORDER;
    if (!is_side(args->d_in) || !is_side(args->d_out) || args->n_rows < 0 || args->n_rows > MAX_ROWS) return WB_E_SIZE;
    if (args->n_experts < 1 || args->n_experts > MAX_EXPERTS) return WB_E_SIZE;
    return check_machine(args->isa, args->threads);
}

static int32_t check_weight(const wb_dense_linear_args *args) {
    int64_t size = wb_value_bytes(args->w_dtype), row_bytes = args->d_in * size;
    if (args->row_stride < row_bytes || args->row_stride > MAX_SIDE * 2 * size) return WB_E_STRIDE;
    if (args->row_stride % size) return WB_E_ALIGNMENT;
    int64_t expert_bytes = (args->d_out - 1) * args->row_stride + row_bytes;
    return check_experts(args->weight, args->n_experts, args->expert_stride, expert_bytes, size);
}

int32_t wb_check_dense_linear(const wb_dense_linear_args *args) {
    if (args == NULL) return WB_E_NULL;
    int32_t status = check_dense_sizes(args);
    if (status) return status;
    int64_t size = wb_value_bytes(args->x_dtype), bias_size = wb_value_bytes(args->bias_dtype);
    int64_t n_bias = args->bias.data ? args->n_experts * args->d_out : 0;
    status = check_counts(args->counts, args->n_experts, args->n_rows);
    if (!status) status = check_weight(args);
    if (!status) status = holds(args->x.data, args->x.bytes, args->n_rows * args->d_in * size, size);
    if (!status) status = holds(args->y.data, args->y.bytes, args->n_rows * args->d_out * size, size);
    if (!status) status = holds(args->bias.data, args->bias.bytes, n_bias * bias_size, bias_size);
    if (status || args->n_rows == 0) return status;
    int shared = overlap(args->y, args->x) || overlap(args->y, args->weight) || overlap(args->y, args->bias) ||
                 overlap(args->y, args->counts);
    return shared ? WB_E_OVERLAP : WB_OK;
}
