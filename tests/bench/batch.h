/* Batches as text: the bodies and whole requests that the bench sends. */
#ifndef BENCH_BATCH_H
#define BENCH_BATCH_H

#include <stddef.h>

#include "base/buffer.h"

/* [[..],..] as the daemon prints it. */
void batch_print(struct buffer *out, const float *values, size_t rows, size_t cols);

/* {"queries":[[..],..],"weights":"none"} */
void batch_body(struct buffer *out, const float *queries, size_t count, size_t dim);

/* A whole request to attend: head and body, with random queries. The caller's
 * to free; ends the program where memory is short. */
struct buffer batch_request(const char *memory, size_t count, size_t dim);

#endif
