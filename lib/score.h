/* Scores as the computing files see them. */
#ifndef ATTN_SCORE_H
#define ATTN_SCORE_H

#include <stdatomic.h>

#include "maps.h"

/* What is computed for a pair, of query and key as the maps left them, before the score's own
 * function is applied. */
enum score_base {
  BASE_DOT,      /* q . k */
  BASE_COSINE,   /* the same, divided by both norms; 0 if one is 0 */
  BASE_DISTANCE, /* ||q - k|| */
  BASE_ADDITIVE, /* v . tanh(q + k), v being the unit weights */
  BASE_ONE,      /* 1 */
  BASE_IDENTITY  /* 1 if q equals k, else 0 */
};

/* How the float32 path can get the exponent of a softmax from the base. Scores
 * that decide (boxcar) or whose errors grow (inverse_distance) have none. */
enum score_f32 {
  SCORE_F32_NONE,
  SCORE_F32_LINEAR,   /* c * base */
  SCORE_F32_DISTANCE, /* c * distance */
  SCORE_F32_SQUARE    /* c * distance^2 */
};

/* All that makes a score: an entry of the table. */
struct score_kind {
  attn_score_info info;
  /* Tensors by their names: those that a query goes through, in this order, the one that each
   * key does, and the unit weights. What they do follows from their shapes: maps.c. */
  const char *query_map[ATTN_QUERY_STEPS];
  const char *key_map;
  const char *unit_weights; /* BASE_ADDITIVE has them, no other */
  enum score_base base;
  /* Numbers whose default_value is NAN, by their index, for keys of that dimension. */
  double (*computed_default)(size_t index, size_t key_dim);
  /* a from the base, in float64; the parameters by their index in the table */
  double (*score)(double base, const double *number);
  /* log a, for kernels whose `sum` is a softmax of it; else NULL */
  double (*log_score)(double base, const double *number);
  enum score_f32 f32;     /* of the score itself, under softmax */
  enum score_f32 f32_log; /* of its logarithm, under sum */
  /* c of the float32 path, for the score or (log) its logarithm */
  double (*coefficient)(const double *number, bool log);
};

struct attn_score {
  const struct score_kind *kind;
  struct attn_params params;
  struct attn_maps maps;
  atomic_size_t references;
};

/* A score of an entry that need not stand in the table, and outlives it: attn_score_create()
 * for the table's own, tests for theirs. */
attn_status attn_score_create_kind(attn_score **score, const struct score_kind *kind,
                                   const attn_argument *args, size_t count, attn_fault *fault);

/* The numbers in force for keys of that dimension, one for each parameter. */
void attn_score_numbers(const attn_score *score, size_t key_dim, double *numbers);

/* Numbers of a query, and of a key, when their base is computed. */
static inline size_t attn_score_mapped_dim(const attn_score *score, size_t key_dim) {
  return score->maps.has_key ? attn_map_out(&score->maps.key, key_dim) : key_dim;
}

#endif
