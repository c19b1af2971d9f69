/* Which experts have rows. */
#include "internal.h"

int64_t wb_count_groups(const void *counts, int64_t n_experts) {
    const int64_t *of = counts;
    int64_t n = 0;
    for (int64_t expert = 0; expert < n_experts; expert++) n += of[expert] > 0;
    return n;
}

void wb_list_groups(const void *counts, int64_t n_experts, wb_group *groups) {
    const int64_t *of = counts;
    int64_t row = 0;
    for (int64_t expert = 0; expert < n_experts; row += of[expert++])
        if (of[expert] > 0) *groups++ = (wb_group){expert, row, of[expert]};
}
