/* Which arithmetic serves a query, and how far off float32 may be. */
#ifndef ATTN_ARITHMETIC_H
#define ATTN_ARITHMETIC_H

#include "attend/queries.h"
#include "attend/select.h"

struct attn_traits {
  bool select; /* candidates instead of a fold */
  bool soft;   /* the fold is one of exponentials */
  bool log;    /* of the score's logarithm */
  double beta; /* 1/temperature */
};

/* What holds for all queries of a request. */
struct attn_arithmetic {
  bool possible; /* float32 can serve some query at all */
  bool select;
  enum score_base base;
  enum score_f32 form;
  double coefficient; /* |c|, with beta in it where the scores have it */
  double max_norm, min_norm;
  double error;       /* of a product of unit vectors, or relative of a distance^2 */
  double hidden;      /* additive: units, ... */
  double hidden_keys; /* ... the largest |mapped key| of a unit ... */
  double hidden_sum;  /* ... and |v| */
};

struct attn_arithmetic attn_arithmetic_of(const attn_snapshot *memory, const attn_score *score,
                                          const struct attn_traits *traits);

/* Whether float32 can serve a query as it was mapped for it (its norm, and its
 * norm with the factors in it); when candidates are wanted, `margin` is set to
 * how far off its scores may be. */
bool attn_arithmetic_fits(const struct attn_arithmetic *arithmetic, double norm, double scaled_norm,
                          struct attn_margin *margin);

/* The largest |exponent| with which a float32 fold may end: beyond it a query
 * has to be computed again. INFINITY where that is known beforehand. */
double attn_arithmetic_limit(const struct attn_arithmetic *arithmetic);

#endif
