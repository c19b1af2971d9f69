/* The product of a few rows with a dense bf16 matrix: bound by how fast the matrix is read. */
#include "check.h"

enum {
    STRIP = 16,             /* rows of W: 90 KB at d_in 2880, which stay in the cache from one call to the next */
    TASK_ROWS = 4 * STRIP,
};

typedef struct {
    const wb_dense_linear_args *args;
    const wb_dense_engine *engine;
    int64_t x_stride; /* bytes of a prepared row of x */
    char *x;          /* prepared */
} dense_job;

static const wb_dense_engine *engine_of(int isa, int64_t x_dtype) {
#if WB_X86
    if (isa == WB_ISA_AVX512_BF16 && x_dtype == WB_BF16) return &wb_dense_avx512_bf16;
    if (isa >= WB_ISA_AVX512) return &wb_dense_avx512;
    if (isa == WB_ISA_AVX2) return &wb_dense_avx2;
#endif
    (void)isa, (void)x_dtype;
    return &wb_dense_generic;
}

static void prepare(const dense_job *job) {
    const wb_dense_linear_args *args = job->args;
    int64_t row_bytes = args->d_in * wb_value_bytes(args->x_dtype);
    for (int64_t row = 0; row < args->n_rows; row++)
        job->engine->prepare((const char *)args->x.data + row * row_bytes, (int)args->x_dtype, args->d_in,
                             job->x + row * job->x_stride);
}

/* A strip of W, n rows from first, times all rows of x, a few at a time: the strip stays in the cache. */
static void multiply_strip(const dense_job *job, int64_t first, int n) {
    const wb_dense_linear_args *args = job->args;
    float sums[WB_DENSE_MAX_X_ROWS * WB_STRIP] WB_ALIGNED64, bias[WB_STRIP];
    if (args->bias.data) wb_load_bias(args->bias.data, args->bias_dtype, first, n, bias);
    for (int64_t row = 0; row < args->n_rows; row += WB_DENSE_MAX_X_ROWS) {
        int m = (int)wb_min(args->n_rows - row, WB_DENSE_MAX_X_ROWS);
        job->engine->dot((const char *)args->weight.data + first * args->row_stride, args->row_stride, n, args->d_in,
                         job->x + row * job->x_stride, job->x_stride, m, sums);
        for (int i = 0; i < m; i++)
            wb_write_row(args->y.data, (row + i) * args->d_out + first, args->x_dtype, sums + i * WB_STRIP,
                         args->bias.data ? bias : NULL, WB_BIAS_FUSED, n);
    }
}

static void dense_task(void *context, int64_t task, int worker) {
    const dense_job *job = context;
    int64_t start = task * TASK_ROWS, end = wb_min(start + TASK_ROWS, job->args->d_out);
    (void)worker;
    for (int64_t first = start; first < end; first += STRIP)
        multiply_strip(job, first, (int)wb_min(end - first, STRIP));
}

int32_t wb_dense_linear(const wb_dense_linear_args *args) {
    int32_t status = wb_check_dense_linear(args);
    if (status || args->n_rows == 0) return status;
    const wb_dense_engine *engine = engine_of(wb_resolve_isa(args->isa), args->x_dtype);
    dense_job job = {args, engine, wb_row_bytes(wb_dense_padded(args->d_in) * engine->value_bytes), NULL};
    wb_lock();
    job.x = wb_scratch(args->n_rows * job.x_stride);
    if (job.x == NULL) {
        status = WB_E_MEMORY;
    } else {
        prepare(&job);
        wb_parallel((int)args->threads, (args->d_out + TASK_ROWS - 1) / TASK_ROWS, dense_task, &job);
    }
    wb_scratch_done();
    wb_unlock();
    return status;
}
