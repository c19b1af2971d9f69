/* The product of rows with plain matrices: how its work is cut. While an expert has few rows, it is bound by how fast its
 * matrix is read, which is read from memory once. */
#include "check.h"

enum {
    STRIP_BYTES = 32 << 10, /* of W, which stay in the cache while rows of x pass by */
    MIN_STRIP = 16,
    MIN_AHEAD = 8 << 10, /* memory takes as long as that to answer */
    TASK_ROWS = WB_STRIP,
};

typedef struct {
    const wb_dense_linear_args *args;
    const wb_dense_engine *engine;
    int64_t strip;    /* rows of W */
    int64_t n_tiles;  /* tasks an expert */
    int64_t n_groups;
    wb_group *groups;
    const char *x;    /* as it is, or prepared */
    int64_t x_stride; /* bytes of a row of it */
} dense_job;

static const wb_dense_engine *engine_of(int isa, int64_t x_dtype, int64_t w_dtype) {
#if WB_X86
    if (isa >= WB_ISA_AVX512 && w_dtype == WB_F32) return &wb_dense_avx512_f32;
    if (isa == WB_ISA_AVX512_BF16 && x_dtype == WB_BF16) return &wb_dense_avx512_bf16;
    if (isa >= WB_ISA_AVX512) return &wb_dense_avx512_wide;
    if (isa == WB_ISA_AVX2) return w_dtype == WB_F32 ? &wb_dense_avx2_f32 : &wb_dense_avx2_bf16;
#endif
    (void)isa, (void)x_dtype;
    return w_dtype == WB_F32 ? &wb_dense_generic_f32 : &wb_dense_generic_bf16;
}

static int is_in_place(const dense_job *job) { return job->engine->in_place == job->args->x_dtype; }

static void prepare(const dense_job *job, char *out) {
    const wb_dense_linear_args *args = job->args;
    int64_t row_bytes = args->d_in * wb_value_bytes(args->x_dtype);
    for (int64_t row = 0; row < args->n_rows; row++)
        job->engine->prepare((const char *)args->x.data + row * row_bytes, (int)args->x_dtype, args->d_in,
                             out + row * job->x_stride);
}

/* m rows of x times a strip of n rows of W. */
static void multiply(const dense_job *job, wb_dense_tile tile, int n, int m, float *sums) {
    wb_dense_kernel kernel = job->engine->kernels[m - 1];
    const char *w = tile.w;
    int r = 0;
    for (; r + WB_W_ROWS <= n; r += WB_W_ROWS) {
        tile.w = w + r * tile.w_stride;
        kernel(tile, job->args->d_in, sums + r);
    }
    for (; r < n; r++) { /* one row stands for all */
        float alone[WB_MAX_X_ROWS * WB_STRIP];
        kernel((wb_dense_tile){w + r * tile.w_stride, tile.x, 0, tile.x_stride, 0}, job->args->d_in, alone);
        for (int row = 0; row < m; row++) sums[row * WB_STRIP + r] = alone[row * WB_STRIP];
    }
}

/* All rows of a group times a strip of its expert's matrix, n rows from first. */
static void multiply_strip(const dense_job *job, const wb_group *rows, int64_t first, int n) {
    const wb_dense_linear_args *args = job->args;
    float sums[WB_MAX_X_ROWS * WB_STRIP] WB_ALIGNED64, bias[WB_STRIP];
    /* Calls of even size: 7 rows are 4 and 3, not 6 and 1. */
    int64_t n_calls = (rows->n_rows + job->engine->max_x_rows - 1) / job->engine->max_x_rows;
    const char *w = (const char *)args->weight.data + rows->expert * args->expert_stride + first * args->row_stride;
    /* With one call there is only a little time to fetch in, with more there is that of the strip. */
    int64_t ahead = n_calls == 1 ? wb_max(WB_W_ROWS * args->row_stride, MIN_AHEAD) : n * args->row_stride;
    if (args->bias.data) wb_load_bias(args->bias.data, args->bias_dtype, rows->expert * args->d_out + first, n, bias);
    for (int64_t call = 0; call < n_calls; call++) {
        int64_t from = rows->n_rows * call / n_calls, m = rows->n_rows * (call + 1) / n_calls - from;
        int64_t x_row = rows->first_row + from;
        wb_dense_tile tile = {w, job->x + x_row * job->x_stride, args->row_stride, job->x_stride, ahead};
        multiply(job, tile, n, (int)m, sums);
        for (int64_t row = 0; row < m; row++)
            wb_write_row(args->y.data, (x_row + row) * args->d_out + first, args->x_dtype, sums + row * WB_STRIP,
                         args->bias.data ? bias : NULL, (wb_bias_order)args->bias_order, n);
    }
}

static void dense_task(void *context, int64_t task, int worker) {
    const dense_job *job = context;
    const wb_group *rows = &job->groups[task / job->n_tiles];
    int64_t start = task % job->n_tiles * TASK_ROWS, end = wb_min(start + TASK_ROWS, job->args->d_out);
    (void)worker;
    for (int64_t first = start; first < end; first += job->strip)
        multiply_strip(job, rows, first, (int)wb_min(end - first, job->strip));
}

static dense_job plan(const wb_dense_linear_args *args) {
    dense_job job = {.args = args};
    job.engine = engine_of(wb_resolve_isa(args->isa), args->x_dtype, args->w_dtype);
    job.strip = wb_max(MIN_STRIP, wb_min(STRIP_BYTES / args->row_stride / MIN_STRIP * MIN_STRIP, WB_STRIP));
    job.n_tiles = (args->d_out + TASK_ROWS - 1) / TASK_ROWS;
    job.n_groups = wb_count_groups(args->counts.data, args->n_experts);
    job.x = args->x.data;
    job.x_stride = is_in_place(&job) ? args->d_in * wb_value_bytes(args->x_dtype)
                                     : wb_row_bytes(wb_dense_padded(args->d_in) * job.engine->value_bytes);
    return job;
}

/* Scratch: prepared x, the list of groups. */
static int32_t get_ready(dense_job *job) {
    int64_t x = is_in_place(job) ? 0 : job->args->n_rows * job->x_stride;
    char *memory = wb_scratch(x + job->n_groups * (int64_t)sizeof(wb_group));
    if (memory == NULL) return WB_E_MEMORY;
    job->groups = (wb_group *)(memory + x);
    wb_list_groups(job->args->counts.data, job->args->n_experts, job->groups);
    if (is_in_place(job)) return WB_OK;
    prepare(job, memory);
    job->x = memory;
    return WB_OK;
}

int32_t wb_dense_linear(const wb_dense_linear_args *args) {
    int32_t status = wb_check_dense_linear(args);
    if (status || args->n_rows == 0) return status;
    dense_job job = plan(args);
    wb_lock();
    status = get_ready(&job);
    if (!status) wb_parallel((int)args->threads, job.n_groups * job.n_tiles, dense_task, &job);
    wb_scratch_done();
    wb_unlock();
    return status;
}
