/* The choice of arithmetic.
 *
 * Two arithmetics compute the same thing. float64 is right for every score,
 * every normalization and every magnitude. float32 is several times faster,
 * and serves in two ways:
 *
 *   fold    softmax of the products, cosine, additive and euclidean, and
 *           gaussian and laplacian under sum, as the softmax of their
 *           logarithms. An error e in an exponent moves a weight by at most
 *           e/4 and an output by e/2, so exponents that are right to 2e-5 are
 *           good enough. That is known before the pass from the norms, or, for
 *           distances, after it from the largest exponent: what was too large
 *           is computed again.
 *   select  hardmax, top_k, sparsemax and entmax15 of the same scores. float32
 *           finds the candidates, with a margin that no rounding can exceed;
 *           what is decided among them, and their weights, are float64.
 *
 * Everything else is float64 throughout: what decides by a threshold (boxcar),
 * divides by a sum that may cancel, or is not normalized at all.
 *
 * An adaptive mixture inside the fold (float32, with single entries redone) was
 * rejected: it needs a bound per entry, and these rules can be checked by eye. */
#include "attend/arithmetic.h"

#include <math.h>

/* Largest |exponent| of distances, and largest |q||k| of products, that
 * float32 may have in a fold: two exponents are then off by less than 2e-5
 * together (tests/unit/lib/attend/test_precision.c looks for the worst). */
#define EXPONENT_LIMIT 50.0
#define PRODUCT_LIMIT  130.0

/* Beyond these, float32 could overflow or lose what underflows. */
#define NORM_LIMIT        1e15
#define VALUE_LIMIT       1e30
#define COEFFICIENT_LIMIT 1e12
#define SQUARE_LIMIT      1e30 /* of coefficient * distance^2 */

/* Half a unit in the last place of 1, and how many roundings a sum goes through
 * in lib/kernels/gemm_f32.h: a chunk of components, then the chunks, and a few. */
#define ROUNDING    0x1p-24
#define CHUNK       128.0
#define OTHER_STEPS 8.0
/* What tanh is off by, and how the square of a distance may underflow. */
#define TANH_ERROR 2e-7
#define UNDERFLOW  1e-36

/* The longest row of the key's matrix, times the longest key, and |v|. */
static void measure_additive(struct attn_arithmetic *arithmetic, const struct attn_maps *maps) {
  const struct attn_map_step *step = &maps->key;
  double longest = 0, v = 0;
  for (size_t h = 0; h < step->rows; h++) {
    double row = 0;
    for (size_t i = 0; i < step->cols; i++) {
      const double w = (double)step->tensor[h * step->cols + i];
      row += w * w;
    }
    longest = fmax(longest, row);
    v += (double)maps->unit_weights[h] * (double)maps->unit_weights[h];
  }
  arithmetic->hidden = (double)step->rows;
  arithmetic->hidden_keys = sqrt(longest) * arithmetic->max_norm;
  arithmetic->hidden_sum = sqrt(v);
}

/* Mapped keys are there in float32 for additive alone, whose matrix meets them as queries do.
 * And a mapped query is rounded, which a distance from a key close to it does not forgive. */
static bool maps_are_served(enum score_base base, const struct attn_maps *maps) {
  if (base == BASE_ADDITIVE) return maps->has_key && maps->key.op == MAP_FROM_RIGHT;
  return !maps->has_key && (base != BASE_DISTANCE || maps->query_steps == 0);
}

struct attn_arithmetic attn_arithmetic_of(const attn_snapshot *memory, const attn_score *score,
                                          const struct attn_traits *traits) {
  const struct score_kind *kind = score->kind;
  const struct attn_block_stats *stats = &memory->stats;
  struct attn_arithmetic arithmetic = {
      .select = traits->select,
      .base = kind->base,
      .form = traits->log ? kind->f32_log : kind->f32,
      .max_norm = stats->max_norm,
      .min_norm = stats->min_norm,
      .error = (CHUNK + (double)memory->key_dim / CHUNK + OTHER_STEPS) * ROUNDING};
  arithmetic.possible = (traits->soft || traits->select) && arithmetic.form != SCORE_F32_NONE &&
                        maps_are_served(kind->base, &score->maps) &&
                        stats->max_norm <= NORM_LIMIT && stats->max_value <= VALUE_LIMIT;
  if (!arithmetic.possible) return arithmetic;
  double numbers[ATTN_PARAMS_MAX];
  attn_score_numbers(score, memory->key_dim, numbers);
  arithmetic.coefficient =
      fabs(kind->coefficient(numbers, traits->log)) * (traits->select ? 1 : traits->beta);
  if (kind->base == BASE_ADDITIVE) measure_additive(&arithmetic, &score->maps);
  return arithmetic;
}

static bool fits_range(const struct attn_arithmetic *a, double norm, double scaled_norm) {
  if (!(norm <= NORM_LIMIT && scaled_norm <= NORM_LIMIT)) return false;
  const double furthest = fmax(1, norm + a->max_norm);
  switch (a->base) {
  case BASE_DOT:
    return true;
  case BASE_COSINE:
    return a->min_norm >= 1 / NORM_LIMIT;
  case BASE_DISTANCE:
    return a->coefficient <= COEFFICIENT_LIMIT &&
           a->coefficient * furthest * furthest <= SQUARE_LIMIT;
  case BASE_ADDITIVE:
    return a->hidden_keys <= NORM_LIMIT && a->coefficient * a->hidden_sum <= NORM_LIMIT;
  default:
    return false;
  }
}

/* No float32 score is further off than this. */
static struct attn_margin margin_of(const struct attn_arithmetic *a, double norm,
                                    double scaled_norm) {
  struct attn_margin margin = {0, 0};
  switch (a->base) {
  case BASE_DOT:
    margin.absolute = a->error * scaled_norm * a->max_norm;
    break;
  case BASE_COSINE:
    margin.absolute = a->error * scaled_norm;
    break;
  case BASE_DISTANCE:
    margin.relative = a->error;
    margin.absolute = a->coefficient * (a->form == SCORE_F32_SQUARE ? UNDERFLOW : sqrt(UNDERFLOW));
    break;
  default: /* additive: |v|_1 <= sqrt(h) |v| times what a unit is off by, and its sum */
    margin.absolute = a->coefficient * sqrt(a->hidden) * a->hidden_sum *
                      (a->error * (1 + norm + a->hidden_keys) + TANH_ERROR +
                       (a->hidden + OTHER_STEPS) * ROUNDING);
    break;
  }
  return margin;
}

bool attn_arithmetic_fits(const struct attn_arithmetic *a, double norm, double scaled_norm,
                          struct attn_margin *margin) {
  if (!a->possible || !fits_range(a, norm, scaled_norm)) return false;
  if (a->select) {
    *margin = margin_of(a, norm, scaled_norm);
    return true;
  }
  switch (a->base) {
  case BASE_DOT:
    return scaled_norm * a->max_norm <= PRODUCT_LIMIT;
  case BASE_COSINE:
    return scaled_norm <= PRODUCT_LIMIT;
  case BASE_ADDITIVE:
    return a->coefficient * a->hidden_sum * (1 + norm + a->hidden_keys) <= PRODUCT_LIMIT;
  default:
    return true;
  }
}

double attn_arithmetic_limit(const struct attn_arithmetic *a) {
  return a->base == BASE_DISTANCE && !a->select ? EXPONENT_LIMIT : INFINITY;
}
