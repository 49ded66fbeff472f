/* Scores as the computing files see them. */
#ifndef ATTN_SCORE_H
#define ATTN_SCORE_H

#include <stdatomic.h>

#include "params.h"

/* What is computed for a pair before the score's own function is applied. */
enum score_base {
  BASE_DOT,      /* mapped query . key */
  BASE_COSINE,   /* the same, divided by both norms; 0 where one is 0 */
  BASE_DISTANCE, /* ||q - k|| */
  BASE_ADDITIVE, /* v . tanh(Wq q + Wk k) */
  BASE_ONE,      /* 1 */
  BASE_IDENTITY  /* 1 where q equals k, else 0 */
};

/* How the float32 path can get the exponent of a softmax from the base. Scores
 * that decide (boxcar) or whose errors grow (inverse_distance) have none. */
enum score_fast {
  FAST_NO,
  FAST_LINEAR,   /* c * base */
  FAST_DISTANCE, /* c * distance */
  FAST_SQUARE    /* c * distance^2 */
};

struct score_kind {
  attn_score_info info;
  enum score_base base;
  /* a from the base, in float64; the parameters by their index in the table */
  double (*score)(double base, const double *number);
  /* log a, for kernels whose `sum` is a softmax of it; else NULL */
  double (*log_score)(double base, const double *number);
  enum score_fast fast;     /* of the score itself, under softmax */
  enum score_fast fast_log; /* of its logarithm, under sum */
  /* c of the float32 path, for the score or (log) its logarithm */
  double (*coefficient)(const double *number, bool log);
};

struct attn_score {
  const struct score_kind *kind;
  struct attn_params params;
  atomic_size_t references;
};

/* The numbers in force for keys of that dimension: ATTN_PARAMS_MAX of them. */
void attn_score_numbers(const attn_score *score, size_t key_dim, double *numbers);

#endif
