/* Unpacking: a long run of blocks, cut into tasks. */
#include "check.h"

enum { TASK_BLOCKS = 1024 }; /* 64 KB of bf16 */

typedef struct {
    const uint8_t *blocks, *scales;
    char *out;
    int64_t n_blocks, block_bytes;
    int dtype;
    wb_unpack_fn unpack;
} unpack_job;

static void unpack_task(void *context, int64_t task, int worker) {
    const unpack_job *job = context;
    int64_t first = task * TASK_BLOCKS;
    (void)worker;
    job->unpack(job->blocks + first * WB_BLOCK_BYTES, job->scales + first, wb_min(job->n_blocks - first, TASK_BLOCKS),
                job->dtype, job->out + first * job->block_bytes);
}

static wb_unpack_fn unpack_of(int isa) {
#if WB_X86
    if (isa >= WB_ISA_AVX512) return wb_unpack_avx512;
    if (isa == WB_ISA_AVX2) return wb_unpack_avx2;
#endif
    (void)isa;
    return wb_unpack_generic;
}

int32_t wb_mxfp4_unpack(wb_buffer blocks, wb_buffer scales, int64_t n_blocks, wb_output out, int32_t dtype,
                        int32_t isa, int32_t threads) {
    int32_t status = wb_check_unpack(blocks, scales, n_blocks, out, dtype, isa, threads);
    if (status) return status;
    unpack_job job = {blocks.data, scales.data, out.data, n_blocks, WB_BLOCK * wb_value_bytes(dtype), dtype,
                      unpack_of(wb_resolve_isa(isa))};
    wb_lock();
    wb_parallel(threads, (n_blocks + TASK_BLOCKS - 1) / TASK_BLOCKS, unpack_task, &job);
    wb_unlock();
    return WB_OK;
}
