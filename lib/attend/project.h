/* Queries through a score's matrix, in float64. */
#ifndef ATTN_PROJECT_H
#define ATTN_PROJECT_H

#include "attend/arena.h"

/* A matrix as the score keeps it: queries are multiplied by it from the right, or by its
 * transpose. */
struct attn_projection {
  const float *matrix; /* rows x cols; NULL: queries stay as they are */
  size_t rows, cols;
  bool transposed;
};

/* What a query of attn_projection_inputs() numbers becomes. */
static inline size_t attn_projection_outputs(const struct attn_projection *by) {
  return by->transposed ? by->rows : by->cols;
}
static inline size_t attn_projection_inputs(const struct attn_projection *by) {
  return by->transposed ? by->cols : by->rows;
}

/* outputs = queries . matrix, or its transpose; `count` dense rows each. A row of the
 * outputs depends on its query alone, to the last bit. ATTN_NO_MEMORY. */
attn_status attn_project(const struct attn_projection *by, struct attn_arena *arena,
                         const double *queries, size_t count, double *outputs);

/* Part of attn_init(): OpenBLAS is told to use the calling thread only. */
void attn_project_init(void);

#endif
