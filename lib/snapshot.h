/* Snapshots as the computing files see them. */
#ifndef ATTN_SNAPSHOT_H
#define ATTN_SNAPSHOT_H

#include <stdatomic.h>

#include "dtype.h"

/* Keys lie in panels of ATTN_PANEL rows, [capacity/16][key_dim][16]: component j
 * of 16 neighbouring keys is one load of the score kernel, and no request has
 * to pack anything. Values stay row-major, as their kernel wants them. */
enum { ATTN_PANEL = 16 };

/* Rows side by side, in one allocation aligned to 64 bytes; numbers are of the
 * snapshot's dtype. Rows of a panel that are not there yet are 0, their scales
 * too; behind the values there is room to read (not to mean) ATTN_PANEL more. */
struct attn_block {
  atomic_size_t references;
  size_t rows, capacity;
  void *panels;                     /* of the keys */
  void *values;                     /* rows x value_dim */
  float *key_scales, *value_scales; /* of rows, or NULL */
  double *norms;                    /* of the keys as they are kept */
};

/* What the choice between float32 and float64 arithmetic needs to know. */
struct attn_extent {
  double max_norm;  /* the longest key */
  double min_norm;  /* the shortest key other than 0; INFINITY without one */
  double max_value; /* the largest |v| of a component */
};

struct attn_snapshot {
  atomic_size_t references;
  size_t key_dim, value_dim, rows;
  attn_dtype dtype;
  size_t tile_rows; /* capacities of blocks are multiples of it */
  struct attn_extent extent;
  size_t block_count;
  struct attn_block **blocks;
};

/* Up to tile_rows rows of one block, from the first row of a panel on. */
struct attn_tile {
  struct attn_numbers keys; /* in panels */
  struct attn_numbers values;
  const double *norms;
  size_t rows, first; /* first: the number of its first row in the snapshot */
};

/* All tiles in order of rows; the array is the caller's. NULL: no memory. */
struct attn_tile *attn_snapshot_tiles(const attn_snapshot *snapshot, size_t *count);

/* Where component `index` of row `row` lies, from the panels' start. */
static inline size_t attn_panel_place(size_t row, size_t index, size_t key_dim) {
  return (row / ATTN_PANEL * key_dim + index) * ATTN_PANEL + row % ATTN_PANEL;
}

/* One row of a tile, widened. */
static inline void attn_tile_key(const struct attn_tile *tile, size_t row, size_t key_dim,
                                 double *key) {
  const struct attn_numbers from =
      attn_numbers_after(tile->keys, row, attn_panel_place(row, 0, key_dim));
  attn_row_doubles(&from, ATTN_PANEL, key_dim, key);
}

static inline void attn_tile_value(const struct attn_tile *tile, size_t row, size_t value_dim,
                                   double *value) {
  const struct attn_numbers from = attn_numbers_after(tile->values, row, row * value_dim);
  attn_row_doubles(&from, 1, value_dim, value);
}

/* Rows rounded up to whole panels. */
static inline size_t attn_panel_rows(size_t rows) {
  return (rows + ATTN_PANEL - 1) / ATTN_PANEL * ATTN_PANEL;
}

/* a * b, or SIZE_MAX where that overflows: no allocation of that size works. */
static inline size_t attn_size_times(size_t a, size_t b) {
  size_t product;
  return __builtin_mul_overflow(a, b, &product) ? SIZE_MAX : product;
}

#endif
