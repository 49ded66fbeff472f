/* Scores of a query block against a tile of keys, in either arithmetic. */
#ifndef ATTN_TILE_H
#define ATTN_TILE_H

#include "attend/queries.h"
#include "kernels/kernels.h"

/* What all tiles of a pass share; read-only once made. */
struct attn_scorer {
  const attn_score *score;
  const struct attn_kernels *kernels;
  size_t key_dim, tile_rows;
  size_t mapped_dim; /* of keys that the score maps, else 0 */
  bool f64;          /* float64 */
  bool log;          /* the score's logarithm */
  double numbers[ATTN_PARAMS_MAX];
  enum score_f32 form;  /* float32: from base to exponent ... */
  float coefficient;    /* ... with 1/temperature multiplied in */
  double *wide_key_map; /* what maps the keys, in float64; owned */
};

attn_status attn_scorer_create(struct attn_scorer *scorer, const attn_snapshot *memory,
                               const struct attn_query_map *map);
void attn_scorer_clear(struct attn_scorer *scorer);

/* What one worker needs for a tile besides its scores. */
struct attn_scratch {
  float *key_factors;            /* tile_rows: 1/|k| */
  float *mapped_keys;            /* mapped_dim x tile_rows */
  double *keys_f64;              /* tile_rows x key_dim */
  double *wide_mapped_keys;      /* tile_rows x mapped_dim */
  struct attn_prefetch prefetch; /* read after this tile's scores; none at first */
};
/* In the arena, for tiles of up to `rows` rows; ATTN_NO_MEMORY. */
attn_status attn_scratch_make(struct attn_scratch *scratch, struct attn_arena *arena,
                              const struct attn_scorer *scorer, size_t rows);

static inline struct attn_prefetch attn_prefetch_keys(const struct attn_tile *tile,
                                                      size_t key_dim) {
  return (struct attn_prefetch){tile->keys.data, attn_panel_rows(tile->rows) * key_dim *
                                                     attn_dtype_bytes(tile->keys.dtype)};
}

static inline struct attn_prefetch attn_prefetch_values(const struct attn_tile *tile,
                                                        size_t value_dim) {
  return (struct attn_prefetch){tile->values.data,
                                tile->rows * value_dim * attn_dtype_bytes(tile->values.dtype)};
}

/* Once per tile, before its scores are asked for. */
void attn_scorer_enter_tile(const struct attn_scorer *scorer, const struct attn_tile *tile,
                            struct attn_scratch *scratch);

/* Where float32 scores go: query q's with row r to data[q * ld + r]. Whole panels are
 * written. */
struct attn_score_view {
  float *data;
  size_t ld;
};

/* Of `count` of the mapped queries; in float64 scores[q - first][r], tile->rows apart. */
void attn_scorer_f32(const struct attn_scorer *scorer, const struct attn_tile *tile,
                     const struct attn_scratch *scratch, const struct attn_queries *queries,
                     size_t first, size_t count, struct attn_score_view to);
void attn_scorer_f64(const struct attn_scorer *scorer, const struct attn_tile *tile,
                     const struct attn_scratch *scratch, const struct attn_queries *queries,
                     size_t first, size_t count, double *scores);

/* The float64 score of one mapped query and one row of the tile, the same number
 * that attn_scorer_f64() computes. Scorer and scratch are those of float64. */
double attn_scorer_f64_pair(const struct attn_scorer *scorer, const struct attn_tile *tile,
                            size_t row, struct attn_scratch *scratch,
                            const struct attn_queries *queries, size_t query);

#endif
