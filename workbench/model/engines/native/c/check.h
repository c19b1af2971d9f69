#ifndef WB_CHECK_H
#define WB_CHECK_H

#include "internal.h"

int64_t wb_value_bytes(int64_t dtype);
int32_t wb_check_unpack(wb_buffer blocks, wb_buffer scales, int64_t n_blocks, wb_output out, int32_t dtype,
                        int32_t isa, int32_t threads);
int32_t wb_check_grouped_linear(const wb_grouped_linear_args *args);
int32_t wb_check_dense_linear(const wb_dense_linear_args *args);

#endif
