/* Runs the library under sanitisers: every buffer is its own allocation of exactly its size, so that one byte too far
 * is seen; results are compared with sums in double. Prints each instruction set's name; exit status 0 if all agree. */
#include "native.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 88172645463325252u;

static uint32_t draw(uint32_t below) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 33) % below;
}

static void *bytes_of(int64_t n) {
    void *memory = malloc(n ? (size_t)n : 1);
    if (!memory) exit(3);
    return memory;
}

static void check(int right, const char *what) {
    if (right) return;
    fprintf(stderr, "wrong: %s\n", what);
    exit(1);
}

static float float_of(uint16_t bf16) {
    uint32_t bits = (uint32_t)bf16 << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static double number(const void *data, int64_t i, int dtype) {
    return dtype == WB_F32 ? (double)((const float *)data)[i] : (double)float_of(((const uint16_t *)data)[i]);
}

/* Multiples of 1/16 in -4..4: exact in bf16. */
static void *numbers(int64_t n, int dtype) {
    void *data = bytes_of(n * (dtype == WB_F32 ? 4 : 2));
    for (int64_t i = 0; i < n; i++) {
        float value = ((float)draw(129) - 64.0f) / 16.0f;
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        if (dtype == WB_F32)
            ((float *)data)[i] = value;
        else
            ((uint16_t *)data)[i] = (uint16_t)(bits >> 16);
    }
    return data;
}

static uint8_t *random_bytes(int64_t n, uint32_t lowest, uint32_t span) {
    uint8_t *data = bytes_of(n);
    for (int64_t i = 0; i < n; i++) data[i] = (uint8_t)(lowest + draw(span));
    return data;
}

static double weight(const uint8_t *blocks, const uint8_t *scales, int64_t i) {
    static const double magnitudes[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    int code = i % 2 ? blocks[i / 2] >> 4 : blocks[i / 2] & 15;
    return (code > 7 ? -1 : 1) * ldexp(magnitudes[code & 7], scales[i / 32] - 127);
}

/* sum is exact; terms is the sum of its terms' magnitudes; a bf16 result was rounded once, or twice with a bias after. */
static void compare(double got, double sum, double bias, double terms, int dtype, int roundings, const char *what) {
    double step = dtype == WB_BF16 ? 0x1p-8 : 0, with_bias = sum + bias;
    double allowed = (terms + fabs(bias)) * 0x1p-18 + fabs(with_bias) * step + (roundings == 2 ? fabs(sum) * step : 0);
    check(fabs(got - with_bias) <= allowed, what);
}

static void compare_grouped(const wb_grouped_linear_args *a) {
    const int64_t *counts = a->counts.data;
    int64_t row = 0;
    for (int64_t e = 0; e < a->n_experts; e++)
        for (int64_t end = row + counts[e]; row < end; row++)
            for (int64_t o = 0; o < a->d_out; o++) {
                const uint8_t *blocks = (const uint8_t *)a->blocks.data + e * a->blocks_stride;
                const uint8_t *scales = (const uint8_t *)a->scales.data + e * a->scales_stride;
                double sum = 0, terms = 0;
                for (int64_t k = 0; k < a->d_in; k++) {
                    double product = number(a->x.data, row * a->d_in + k, (int)a->x_dtype) *
                                     weight(blocks, scales, o * a->d_in + k);
                    sum += product, terms += fabs(product);
                }
                double bias = a->bias.data ? number(a->bias.data, e * a->d_out + o, (int)a->bias_dtype) : 0;
                compare(number(a->y.data, row * a->d_out + o, (int)a->x_dtype), sum, bias, terms, (int)a->x_dtype, 2,
                        "grouped_linear");
            }
}

static void compare_dense(const wb_dense_linear_args *a) {
    const int64_t *counts = a->counts.data;
    int64_t row = 0, size = a->w_dtype == WB_F32 ? 4 : 2;
    for (int64_t e = 0; e < a->n_experts; e++)
        for (int64_t end = row + counts[e]; row < end; row++)
            for (int64_t o = 0; o < a->d_out; o++) {
                double sum = 0, terms = 0;
                for (int64_t k = 0; k < a->d_in; k++) {
                    int64_t at = (e * a->expert_stride + o * a->row_stride) / size + k;
                    double product = number(a->x.data, row * a->d_in + k, (int)a->x_dtype) *
                                     number(a->weight.data, at, (int)a->w_dtype);
                    sum += product, terms += fabs(product);
                }
                double bias = a->bias.data ? number(a->bias.data, e * a->d_out + o, (int)a->bias_dtype) : 0;
                compare(number(a->y.data, row * a->d_out + o, (int)a->x_dtype), sum, bias, terms, (int)a->x_dtype,
                        a->bias_order == WB_BIAS_AFTER ? 2 : 1, "dense_linear");
            }
}

/* Rows of each of some experts, to be freed; some have none. */
static int64_t *random_counts(int64_t n_experts, int64_t *n_rows) {
    int64_t *counts = bytes_of(n_experts * 8);
    *n_rows = 0;
    for (int64_t e = 0; e < n_experts; e++) *n_rows += counts[e] = draw(3) ? draw(draw(6) ? 9 : 50) : 0;
    return counts;
}

static void linear_case(int isa, int threads) {
    int64_t n_experts = 1 + draw(4), d_in = 32 * (1 + draw(7)), d_out = 1 + draw(90), n_rows;
    int64_t *counts = random_counts(n_experts, &n_rows), rows_bytes, scale_bytes = d_out * d_in / 32;
    int dtype = (int)draw(2), bias_dtype = (int)draw(2);
    rows_bytes = n_rows * (dtype == WB_F32 ? 4 : 2);
    /* The last expert has no gap behind it. */
    int64_t gap = draw(2) * 7, block_stride = scale_bytes * 16 + gap, scale_stride = scale_bytes + gap;
    int64_t blocks_size = n_experts * block_stride - gap, scales_size = n_experts * scale_stride - gap;
    void *x = numbers(n_rows * d_in, dtype), *bias = draw(4) ? numbers(n_experts * d_out, bias_dtype) : NULL;
    uint8_t *blocks = random_bytes(blocks_size, 0, 256), *scales = random_bytes(scales_size, 120, 12);
    void *y = bytes_of(rows_bytes * d_out);
    wb_grouped_linear_args args = {sizeof args, n_experts, n_rows, d_in, d_out, {counts, n_experts * 8},
        {x, rows_bytes * d_in}, {blocks, blocks_size}, {scales, scales_size}, block_stride, scale_stride,
        {bias, n_experts * d_out * (bias_dtype == WB_F32 ? 4 : 2)}, {y, rows_bytes * d_out}, dtype, bias_dtype, isa,
        threads};
    check(wb_mxfp4_grouped_linear(&args) == WB_OK, "status of grouped_linear");
    compare_grouped(&args);
    free(counts), free(x), free(bias), free(blocks), free(scales), free(y);
}

static void dense_case(int isa, int threads) {
    int64_t n_experts = 1 + draw(3), d_in = 1 + draw(draw(2) ? 40 : 400), d_out = 1 + draw(200), n_rows;
    int64_t *counts = random_counts(n_experts, &n_rows);
    int dtype = (int)draw(2), w_dtype = (int)draw(2), bias_dtype = (int)draw(2), order = (int)draw(2);
    int64_t row_bytes = n_rows * (dtype == WB_F32 ? 4 : 2), w_size = w_dtype == WB_F32 ? 4 : 2;
    /* The last row of the last expert has no gap behind it. */
    int64_t stride = d_in + draw(2) * 3, of_expert = d_out * stride + draw(2) * 5;
    int64_t n_weights = (n_experts - 1) * of_expert + (d_out - 1) * stride + d_in;
    void *x = numbers(n_rows * d_in, dtype), *w = numbers(n_weights, w_dtype), *y = bytes_of(row_bytes * d_out);
    void *bias = draw(4) ? numbers(n_experts * d_out, bias_dtype) : NULL;
    wb_dense_linear_args args = {sizeof args, n_experts, n_rows, d_in, d_out, {counts, n_experts * 8},
        {x, row_bytes * d_in}, {w, n_weights * w_size}, of_expert * w_size, stride * w_size,
        {bias, n_experts * d_out * (bias_dtype == WB_F32 ? 4 : 2)}, {y, row_bytes * d_out}, dtype, w_dtype, bias_dtype,
        order, isa, threads};
    check(wb_dense_linear(&args) == WB_OK, "status of dense_linear");
    compare_dense(&args);
    free(counts), free(x), free(w), free(y), free(bias);
}

/* Every scale, also those that overflow: only the memory is of interest here, and that nothing traps. */
static void unpack_case(int isa, int threads) {
    int64_t n = draw(2) ? draw(40) : draw(4000);
    int dtype = (int)draw(2);
    int64_t out_bytes = n * 32 * (dtype == WB_F32 ? 4 : 2);
    uint8_t *blocks = random_bytes(n * 16, 0, 256), *scales = random_bytes(n, 0, 256);
    void *out = bytes_of(out_bytes);
    int32_t status = wb_mxfp4_unpack((wb_buffer){blocks, n * 16}, (wb_buffer){scales, n}, n,
                                     (wb_output){out, out_bytes}, dtype, isa, threads);
    check(status == WB_OK, "status of unpack");
    for (int64_t i = 0; i < n * 32; i++)
        if (scales[i / 32] < 250) check(number(out, i, dtype) == weight(blocks, scales, i), "unpack");
    free(blocks), free(scales), free(out);
}

/* A team as OpenMP has one: the caller and new threads, all waited for. */
enum { TEAM = 3 };

static struct {
    void (*member)(void *);
    void *context;
} team;

static int team_size(void) { return TEAM; }

static void *team_thread(void *unused) {
    team.member(team.context);
    return unused;
}

static void team_run(void (*member)(void *), void *context, unsigned threads, unsigned flags) {
    pthread_t others[TEAM];
    team.member = member;
    team.context = context;
    for (unsigned i = 1; i < threads; i++) check(pthread_create(&others[i], NULL, team_thread, NULL) == 0, "a thread");
    member(context);
    for (unsigned i = 1; i < threads; i++) pthread_join(others[i], NULL);
    check(threads == TEAM && flags == 0, "the team's size");
}

int main(void) {
    for (int isa = WB_ISA_GENERIC; isa < WB_ISA_COUNT; isa++) {
        if (!wb_isa_supported(isa)) continue;
        for (int i = 0; i < 60; i++) {
            /* 30 cases of each by the pool, 30 in which three threads are the team. */
            if (i == 0) wb_use_team(NULL, NULL);
            if (i == 30) wb_use_team(team_run, team_size);
            linear_case(isa, 1 + i % 3);
            unpack_case(isa, 1 + i % 3);
            dense_case(isa, 1 + i % 3);
        }
        printf("%s\n", wb_isa_name(isa));
    }
    wb_release_scratch();
    return 0;
}
