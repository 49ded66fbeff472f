/* Scores of a block of queries against a tile of keys, in either arithmetic. */
#ifndef ATTN_TILE_H
#define ATTN_TILE_H

#include "kernels.h"
#include "queries.h"

/* What all tiles of a pass share; read-only once made. */
struct attn_scorer {
  const attn_score *score;
  const struct attn_kernels *kernels;
  size_t key_dim, tile_rows;
  size_t mapped_dim; /* of keys that the score maps, else 0 */
  bool exact;        /* float64 */
  bool log;          /* the score's logarithm */
  double numbers[ATTN_PARAMS_MAX];
  enum score_fast shape; /* float32: from base to exponent ... */
  float coefficient;     /* ... with 1/temperature multiplied in */
  double *wide_key_map;  /* what maps the keys, in float64; owned */
};

attn_status attn_scorer_create(struct attn_scorer *scorer, const attn_snapshot *memory,
                               const struct attn_query_map *map);
void attn_scorer_clear(struct attn_scorer *scorer);

/* What one worker needs for a tile besides its scores. */
struct attn_scratch {
  float *key_factors;       /* tile_rows: 1/|k| */
  float *mapped_keys;       /* mapped_dim x tile_rows */
  double *wide_keys;        /* tile_rows x key_dim */
  double *wide_mapped_keys; /* tile_rows x mapped_dim */
  struct attn_ahead ahead;  /* what the pass wants after the scores of this tile; none at first */
};
/* In that room, for tiles of up to so many rows; ATTN_NO_MEMORY. */
attn_status attn_scratch_make(struct attn_scratch *scratch, struct attn_room *room,
                              const struct attn_scorer *scorer, size_t rows);

static inline struct attn_ahead attn_tile_keys_ahead(const struct attn_tile *tile, size_t key_dim) {
  return (struct attn_ahead){tile->keys.data, attn_panel_rows(tile->rows) * key_dim *
                                                  attn_dtype_bytes(tile->keys.dtype)};
}

static inline struct attn_ahead attn_tile_values_ahead(const struct attn_tile *tile,
                                                       size_t value_dim) {
  return (struct attn_ahead){tile->values.data,
                             tile->rows * value_dim * attn_dtype_bytes(tile->values.dtype)};
}

/* Once per tile, before its scores are asked for. */
void attn_scorer_enter_tile(const struct attn_scorer *scorer, const struct attn_tile *tile,
                            struct attn_scratch *scratch);

/* Where float32 scores go: of the first query to scores[0], scores[1], ..., of each
 * further one `stride` after. Whole panels are written. */
struct attn_sheet {
  float *scores;
  size_t stride;
};

/* Of `count` of the mapped queries; in float64 scores[q - first][r], tile->rows apart. */
void attn_scorer_fast(const struct attn_scorer *scorer, const struct attn_tile *tile,
                      const struct attn_scratch *scratch, const struct attn_queries *queries,
                      size_t first, size_t count, struct attn_sheet to);
void attn_scorer_exact(const struct attn_scorer *scorer, const struct attn_tile *tile,
                       const struct attn_scratch *scratch, const struct attn_queries *queries,
                       size_t first, size_t count, double *scores);

/* The float64 score of one mapped query and one row of the tile, the same number
 * that attn_scorer_exact() computes. Scorer and scratch are exact ones. */
double attn_scorer_exact_pair(const struct attn_scorer *scorer, const struct attn_tile *tile,
                              size_t row, struct attn_scratch *scratch,
                              const struct attn_queries *queries, size_t query);

#endif
