/* Snapshots as the computing files see them. */
#ifndef ATTN_SNAPSHOT_H
#define ATTN_SNAPSHOT_H

#include "memory/block.h"

struct attn_snapshot {
  atomic_size_t references;
  size_t key_dim, value_dim, rows;
  attn_dtype dtype;
  size_t tile_rows;              /* the capacity of blocks is a multiple of it */
  struct attn_block_stats stats; /* of all blocks */
  size_t block_count;
  struct attn_block **blocks;
  size_t *firsts; /* of each block, the number of its first row */
};

/* A snapshot of the shape of another, without rows, that can take `block_room`
 * blocks. Whoever makes it takes blocks in until it is published. */
attn_snapshot *attn_snapshot_like(const attn_snapshot *shape, size_t block_room);

/* The block becomes the last one; the reference is the snapshot's from now on. */
void attn_snapshot_take(attn_snapshot *snapshot, struct attn_block *block);

static inline struct attn_block_shape attn_snapshot_shape(const attn_snapshot *snapshot) {
  return (struct attn_block_shape){snapshot->key_dim, snapshot->value_dim, snapshot->dtype};
}

/* Whether rows of float32 can be addressed along with those that are there. */
bool attn_snapshot_can_address(const attn_snapshot *snapshot, size_t rows);

/* Up to tile_rows rows of one block, from the first row of a panel on. */
struct attn_tile {
  struct attn_numbers keys; /* in panels */
  struct attn_numbers values;
  const double *norms;
  size_t rows, first; /* first: the number of its first row in the snapshot */
  size_t split;
};

/* All tiles in order of rows, in `splits` splits of as many rows each as panels
 * allow; of few rows, a split may be empty. The array is the caller's. NULL: no
 * memory. */
struct attn_tile *attn_snapshot_tiles(const attn_snapshot *snapshot, size_t splits, size_t *count);

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

/* a * b, or SIZE_MAX where that overflows: no allocation of that size works. */
static inline size_t attn_size_times(size_t a, size_t b) {
  size_t product;
  return __builtin_mul_overflow(a, b, &product) ? SIZE_MAX : product;
}

#endif
