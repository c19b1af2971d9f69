/* Scratch memory that calls leave to each other: fresh pages cost more than the work done on them. */
#include "internal.h"

#include <stdlib.h>

enum { ALIGNMENT = 64 };
#define KEPT_BYTES ((int64_t)96 << 20) /* more than this is given back after the call */

static struct {
    void *memory, *aligned;
    int64_t bytes;
} scratch;

static void drop(void) {
    free(scratch.memory);
    memset(&scratch, 0, sizeof scratch);
}

void *wb_scratch(int64_t bytes) {
    if (bytes <= scratch.bytes) return scratch.aligned;
    drop();
    scratch.memory = malloc((size_t)bytes + ALIGNMENT);
    if (scratch.memory == NULL) return NULL;
    scratch.aligned = (void *)(((uintptr_t)scratch.memory + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1));
    scratch.bytes = bytes;
    return scratch.aligned;
}

void wb_scratch_done(void) {
    if (scratch.bytes > KEPT_BYTES) drop();
}

void wb_release_scratch(void) {
    wb_lock();
    drop();
    wb_unlock();
}
