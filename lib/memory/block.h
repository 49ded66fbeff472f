/* Blocks: rows side by side in one allocation, as the computing files and the
 * files that make snapshots see them. */
#ifndef ATTN_BLOCK_H
#define ATTN_BLOCK_H

#include <stdatomic.h>

#include "memory/panel.h"

/* Bounds of a block's rows, or of all blocks of a snapshot (a zone map): what the choice
 * between float32 and float64 arithmetic needs to know. */
struct attn_block_stats {
  double max_norm;  /* the longest key */
  double min_norm;  /* the shortest key other than 0; INFINITY without one */
  double max_value; /* the largest |v| of a component */
};

extern const struct attn_block_stats attn_block_stats_empty;
void attn_block_stats_merge(struct attn_block_stats *stats, const struct attn_block_stats *other);

struct attn_block_shape {
  size_t key_dim, value_dim;
  attn_dtype dtype;
};

/* Aligned to 64 bytes; numbers are of the block's dtype. Rows of the last panel
 * that are none are 0, their scales too; ATTN_PANEL numbers behind the values
 * may be read (and mean nothing). What a growing snapshot looks at of the
 * blocks that it shares comes first, in one cache line. */
struct attn_block {
  atomic_size_t references;
  atomic_bool promoted; /* to huge pages, as far as the system has any */
  size_t rows;          /* >= 1 */
  struct attn_block_stats stats;
  struct attn_block_shape shape;
  void *panels;                     /* of the keys */
  void *values;                     /* rows x value_dim */
  float *key_scales, *value_scales; /* of rows, or NULL */
  double *norms;                    /* of the keys as they are kept */
};

/* Rows that a block takes. */
size_t attn_block_capacity(const struct attn_block_shape *shape);

/* RAM of a block of that many rows. */
size_t attn_block_bytes(const struct attn_block_shape *shape, size_t rows);

/* Without numbers yet, but for the scales and the rows of the last panel that
 * are none. The one who makes a block puts something into each row, seals it,
 * and changes it no more. NULL: no memory. */
struct attn_block *attn_block_create(const struct attn_block_shape *shape, size_t rows);

/* For a block that fills memory the process has not used before: has the system
 * give all its pages, or those of its keys or values, in one go, where it can. */
void attn_block_populate(struct attn_block *block);
void attn_block_populate_keys(struct attn_block *block);
void attn_block_populate_values(struct attn_block *block);

/* Rows row .. row + count - 1, checked and rounded. Norms are made along with
 * the keys. */
attn_status attn_block_put_keys(struct attn_block *block, size_t row, const float *keys,
                                size_t count);
attn_status attn_block_put_values(struct attn_block *block, size_t row, const float *values,
                                  size_t count);

/* Both from another block of the same shape, to the bit. */
void attn_block_copy(struct attn_block *to, size_t to_row, const struct attn_block *from,
                     size_t from_row, size_t count);

/* Makes the stats. */
void attn_block_seal(struct attn_block *block);

/* What a row, and those behind it, is kept as: a key in its panel. */
struct attn_numbers attn_block_key(const struct attn_block *block, size_t row);
struct attn_numbers attn_block_value(const struct attn_block *block, size_t row);

static inline struct attn_panel_shape attn_block_panels(const struct attn_block_shape *shape) {
  return (struct attn_panel_shape){shape->key_dim, attn_dtype_bytes(shape->dtype)};
}

/* The largest power of two of rows, at least a panel and at most `most`, whose
 * numbers are no more than `numbers`. */
size_t attn_rows_for(size_t numbers, size_t row_numbers, size_t most);

#endif
