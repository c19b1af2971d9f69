/* The grouped product with packed matrices: how its work is cut into tasks, and what a task does with an engine's
 * kernels. */
#include "check.h"

enum {
    TASKS_PER_THREAD = 16,
    MAX_TILE = 4 * WB_STRIP,
    DECODED_ROWS = 16, /* rows of W decoded to a worker's scratch at a time: 90 KB at d_in 2880, a small part of an L2 */
    PREPARE_ROWS = 16,
    ALONE_VALUES = 1 << 16, /* fewer values of x are prepared by the caller alone */
};

typedef struct {
    const wb_grouped_linear_args *args;
    const wb_engine *engine;
    int64_t n_blocks, n_steps;  /* of a row: blocks, and groups of the engine's size */
    int64_t x_stride, w_stride; /* bytes of a prepared row of x, of a decoded row of W */
    int64_t tile, n_tiles;      /* rows of W a task; tasks an expert */
    int64_t n_groups;
    wb_group *groups;
    char *x;       /* prepared */
    char *decoded; /* DECODED_ROWS rows a worker */
} linear_job;

/* Rows of an expert's matrix, at most WB_STRIP. */
typedef struct {
    wb_row rows;      /* the first; the others lie behind it */
    int64_t first;
    int n;
    uint64_t inexact; /* bit j: row j needs dot_exact */
    float bias[WB_STRIP];
} strip;

static const wb_engine *engine_of(int isa, int64_t x_dtype) {
#if WB_X86
    if (isa == WB_ISA_AVX512_BF16 && x_dtype == WB_BF16) return &wb_avx512_bf16_engine;
    if (isa >= WB_ISA_AVX512) return &wb_avx512_engine;
    if (isa == WB_ISA_AVX2) return &wb_avx2_engine;
#endif
    (void)isa, (void)x_dtype;
    return &wb_generic_engine;
}

static void prepare_task(void *context, int64_t task, int worker) {
    const linear_job *job = context;
    const wb_grouped_linear_args *args = job->args;
    int64_t row_bytes = args->d_in * wb_value_bytes(args->x_dtype);
    int64_t first = task * PREPARE_ROWS, end = wb_min(first + PREPARE_ROWS, args->n_rows);
    (void)worker;
    for (int64_t row = first; row < end; row++)
        job->engine->prepare((const char *)args->x.data + row * row_bytes, (int)args->x_dtype, args->d_in,
                             job->x + row * job->x_stride);
}

static wb_row row_at(const linear_job *job, int64_t expert, int64_t row) {
    const wb_grouped_linear_args *args = job->args;
    const uint8_t *blocks = (const uint8_t *)args->blocks.data + expert * args->blocks_stride;
    const uint8_t *scales = (const uint8_t *)args->scales.data + expert * args->scales_stride;
    return (wb_row){blocks + row * job->n_blocks * WB_BLOCK_BYTES, scales + row * job->n_blocks};
}

static void open_strip(const linear_job *job, int64_t expert, int64_t first, int n, strip *w) {
    const wb_grouped_linear_args *args = job->args;
    w->rows = row_at(job, expert, first);
    w->first = first;
    w->n = n;
    w->inexact = 0;
    if (args->bias.data) wb_load_bias(args->bias.data, args->bias_dtype, expert * args->d_out + first, n, w->bias);
}

/* Note which of n rows from j on need dot_exact. Best right after they were read, when their scales are in the cache. */
static void look_for_inexact_rows(const linear_job *job, strip *w, int j, int n) {
    const wb_engine *engine = job->engine;
    /* One look at all of them is mostly all it takes. */
    if (engine->inexact == NULL || !engine->inexact(wb_row_after(w->rows, j, job->n_blocks), n * job->n_blocks)) return;
    for (int end = j + n; j < end; j++)
        if (engine->inexact(wb_row_after(w->rows, j, job->n_blocks), job->n_blocks)) w->inexact |= (uint64_t)1 << j;
}

/* Part i of n of the blocks behind a strip, those of the next: they arrive while decoded rows are multiplied. */
static void look_ahead_to_strip(const linear_job *job, const strip *w, int64_t i, int64_t n) {
    int64_t lines = w->n * job->n_blocks * WB_BLOCK_BYTES / 64;
    uintptr_t next = (uintptr_t)w->rows.blocks + (uintptr_t)(w->n * job->n_blocks * WB_BLOCK_BYTES);
    for (int64_t line = lines * i / n; line < lines * (i + 1) / n; line++) WB_PREFETCH_FAR(next + (uintptr_t)(line * 64));
}

/* m rows of x times a strip, decoded. This is call i of n. */
static void multiply_decoded(const linear_job *job, const strip *w, const char *decoded, const char *x, int m,
                             float *sums, int64_t i, int64_t n) {
    int64_t kernels = (w->n + WB_W_ROWS - 1) / WB_W_ROWS;
    for (int64_t k = 0; k < kernels; k++, decoded += WB_W_ROWS * job->w_stride) {
        look_ahead_to_strip(job, w, i * kernels + k, n * kernels);
        job->engine->dot_plain(decoded, job->w_stride, x, job->x_stride, job->n_steps, m, sums + k * WB_W_ROWS);
    }
}

/* m rows of x times a strip as it is. */
static void multiply_packed(const linear_job *job, strip *w, const char *x, int m, float *sums, int is_first) {
    for (int j = 0; j < w->n; j += DECODED_ROWS) {
        int n = (int)wb_min(w->n - j, DECODED_ROWS);
        job->engine->dot_packed(wb_row_after(w->rows, j, job->n_blocks), n, job->n_blocks, x, job->x_stride, m, sums + j);
        if (is_first) look_for_inexact_rows(job, w, j, n);
    }
}

static void correct(const linear_job *job, const strip *w, const char *x, int m, float *sums) {
    for (int j = 0; j < w->n; j++)
        for (int row = 0; row < m && (w->inexact >> j & 1); row++)
            sums[row * WB_STRIP + j] =
                job->engine->dot_exact(wb_row_after(w->rows, j, job->n_blocks), job->n_blocks, x + row * job->x_stride);
}

static void decode_strip(const linear_job *job, strip *w, char *decoded) {
    for (int j = 0; j < (w->n + WB_W_ROWS - 1) / WB_W_ROWS * WB_W_ROWS; j++) /* the last row again to fill up */
        job->engine->decode(wb_row_after(w->rows, j < w->n ? j : w->n - 1, job->n_blocks), job->n_blocks,
                            decoded + j * job->w_stride);
    look_for_inexact_rows(job, w, 0, w->n);
}

/* All rows of a group times a strip of its expert's matrix. */
static void multiply_strip(const linear_job *job, const wb_group *rows, int64_t first, int n, char *decoded) {
    const wb_grouped_linear_args *args = job->args;
    float sums[WB_MAX_X_ROWS * WB_STRIP] WB_ALIGNED64;
    /* Calls of even size: 7 rows are 4 and 3, not 6 and 1. */
    int64_t at_once = decoded ? job->engine->max_plain_x_rows : job->engine->max_packed_x_rows;
    int64_t n_calls = (rows->n_rows + at_once - 1) / at_once;
    strip w;
    open_strip(job, rows->expert, first, n, &w);
    if (decoded) decode_strip(job, &w, decoded);
    for (int64_t call = 0; call < n_calls; call++) {
        int64_t from = rows->n_rows * call / n_calls, m = rows->n_rows * (call + 1) / n_calls - from;
        int64_t x_row = rows->first_row + from;
        const char *x = job->x + x_row * job->x_stride;
        if (decoded)
            multiply_decoded(job, &w, decoded, x, (int)m, sums, call, n_calls);
        else
            multiply_packed(job, &w, x, (int)m, sums, call == 0);
        if (w.inexact) correct(job, &w, x, (int)m, sums);
        for (int64_t row = 0; row < m; row++)
            wb_write_row(args->y.data, (x_row + row) * args->d_out + first, args->x_dtype, sums + row * WB_STRIP,
                         args->bias.data ? w.bias : NULL, WB_BIAS_AFTER, n);
    }
}

static void linear_task(void *context, int64_t task, int worker) {
    const linear_job *job = context;
    const wb_group *rows = &job->groups[task / job->n_tiles];
    int64_t start = task % job->n_tiles * job->tile, end = wb_min(start + job->tile, job->args->d_out);
    int is_decoded = rows->n_rows > job->engine->max_packed_rows;
    char *decoded = is_decoded ? job->decoded + worker * DECODED_ROWS * job->w_stride : NULL;
    for (int64_t step = is_decoded ? DECODED_ROWS : WB_STRIP, first = start; first < end; first += step)
        multiply_strip(job, rows, first, (int)wb_min(end - first, step), decoded);
}

static linear_job plan(const wb_grouped_linear_args *args) {
    const wb_engine *engine = engine_of(wb_resolve_isa(args->isa), args->x_dtype);
    int64_t n_steps = (args->d_in + engine->group - 1) / engine->group, n_groups = wb_count_groups(args->counts.data, args->n_experts);
    int64_t wanted = n_groups * args->d_out / (TASKS_PER_THREAD * args->threads) / WB_STRIP * WB_STRIP;
    int64_t tile = wb_max(WB_STRIP, wb_min(wanted, MAX_TILE));
    return (linear_job){
        .args = args,
        .engine = engine,
        .n_blocks = args->d_in / WB_BLOCK,
        .n_steps = n_steps,
        .x_stride = wb_row_bytes(n_steps * engine->group * engine->value_bytes),
        .w_stride = wb_row_bytes(n_steps * engine->group * engine->weight_bytes),
        .tile = tile,
        .n_tiles = (args->d_out + tile - 1) / tile,
        .n_groups = n_groups,
    };
}

/* Scratch: prepared x, each worker's decoded rows, the list of groups. */
static int32_t get_scratch(linear_job *job) {
    int64_t x = job->args->n_rows * job->x_stride, decoded = job->args->threads * DECODED_ROWS * job->w_stride;
    char *memory = wb_scratch(x + decoded + job->n_groups * (int64_t)sizeof(wb_group));
    if (memory == NULL) return WB_E_MEMORY;
    job->x = memory;
    job->decoded = memory + x;
    job->groups = (wb_group *)(memory + x + decoded);
    return WB_OK;
}

static void run(linear_job *job) {
    const wb_grouped_linear_args *args = job->args;
    int64_t prepare_tasks = (args->n_rows + PREPARE_ROWS - 1) / PREPARE_ROWS;
    int alone = args->n_rows * args->d_in < ALONE_VALUES;
    wb_list_groups(args->counts.data, args->n_experts, job->groups);
    wb_parallel(alone ? 1 : (int)args->threads, prepare_tasks, prepare_task, job);
    wb_parallel((int)args->threads, job->n_groups * job->n_tiles, linear_task, job);
}

int32_t wb_mxfp4_grouped_linear(const wb_grouped_linear_args *args) {
    int32_t status = wb_check_grouped_linear(args);
    if (status || args->n_rows == 0) return status;
    linear_job job = plan(args);
    wb_lock();
    status = get_scratch(&job);
    if (!status) run(&job);
    wb_scratch_done();
    wb_unlock();
    return status;
}
