/* Normalizations that fold tile by tile.
 *
 * soft   softmax, and gaussian or laplacian under `sum`, as the softmax of
 *        their logarithms. The state is (max, sum, outputs) with weights
 *        relative to exp(max), rescaled when the maximum grows: the online
 *        softmax of Milakov & Gimelshein 2018 as in FlashAttention (Dao et al.
 *        2022). Two states merge by rescaling both to the larger maximum. In
 *        float32 a key block first becomes a partial, relative to its own
 *        maximum: several may be computed at once, and are added in order.
 * mass   sum, none, sigmoid: plain sums.
 *
 * States are float64 in both arithmetics: adding a float32 product of some
 * hundred rows to them keeps a million rows as exact as those, and costs little
 * beside computing it. Tiles of wide rows are shorter than that, so a key block has
 * several of them, or a large batch would spend a tenth of its time on states that
 * fit no cache. Prefetching the next query block meanwhile gained nothing.
 *
 * Rejected: leaving a maximum that is exceeded by little where it is, which saves
 * rescaling. The largest weight would not be exactly 1 before the division, and
 * a look-up would not give the value to the bit. */
#include "attend/fold.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attend/tile.h"

/* ---- States ---- */

static struct attn_selection *selections_create(size_t count, size_t top) {
  struct attn_selection *made = calloc(count, sizeof *made);
  for (size_t q = 0; made && q < count; q++)
    attn_selection_init(&made[q], top, 0, (struct attn_margin){0});
  return made;
}

static void selections_free(struct attn_selection *selections, size_t count) {
  for (size_t q = 0; selections && q < count; q++)
    attn_selection_free(&selections[q]);
  free(selections);
}

attn_status attn_fold_create(struct attn_fold *fold, struct attn_arena *arena,
                             const struct attn_fold_plan *plan, size_t count) {
  *fold = (struct attn_fold){.count = count};
  fold->max = attn_arena_alloc(arena, count, sizeof *fold->max);
  fold->sum = attn_arena_alloc(arena, count, sizeof *fold->sum);
  fold->outputs =
      attn_arena_alloc(arena, attn_size_times(count, plan->value_dim), sizeof *fold->outputs);
  bool made = fold->max && fold->sum && fold->outputs;
  if (plan->top > 0) {
    fold->largest = selections_create(count, plan->top);
    made = made && fold->largest;
    if (!plan->soft && plan->norm->kind->rule == RULE_SUM) {
      fold->smallest = selections_create(count, plan->top);
      made = made && fold->smallest;
    }
  }
  return made ? ATTN_OK : ATTN_NO_MEMORY;
}

void attn_fold_free(struct attn_fold *fold) {
  selections_free(fold->largest, fold->count);
  selections_free(fold->smallest, fold->count);
  *fold = (struct attn_fold){0};
}

void attn_fold_begin(struct attn_fold *fold, const struct attn_fold_plan *plan, size_t first,
                     size_t end) {
  const size_t dim = plan->value_dim, count = end - first;
  for (size_t q = first; q < end; q++)
    fold->max[q] = -INFINITY;
  memset(fold->sum + first, 0, count * sizeof *fold->sum);
  memset(fold->outputs + first * dim, 0, count * dim * sizeof *fold->outputs);
}

/* Makes `max` the maximum that query q's sums are relative to, and says what the
 * outputs so far are to be multiplied by for that. */
static double raise_max(struct attn_fold *fold, size_t q, double max, double beta) {
  if (!(max > fold->max[q])) return 1;
  const double factor = fold->sum[q] != 0 ? exp(beta * (fold->max[q] - max)) : 1;
  fold->sum[q] *= factor;
  fold->max[q] = max;
  return factor;
}

static void raise_max_at_once(struct attn_fold *fold, const struct attn_fold_plan *plan, size_t q,
                              double max) {
  const double factor = raise_max(fold, q, max, plan->beta);
  if (factor != 1)
    plan->kernels->row_scale_f64(fold->outputs + q * plan->value_dim, plan->value_dim, factor);
}

static float *weights_at(const struct attn_fold_plan *plan, const struct attn_scored_block *scored,
                         size_t q) {
  return plan->weights + scored->which[q] * plan->rows + scored->tiles->first;
}

static void set_anchors(const struct attn_fold_plan *plan, const struct attn_scored_block *scored,
                        size_t q, double anchor) {
  double *anchors = plan->anchors + (scored->first + q) * plan->tile_count + scored->index;
  for (size_t t = 0; t < scored->tile_count; t++)
    anchors[t] = anchor;
}

/* ---- float32 ---- */

static void multiply_values(const struct attn_fold_plan *plan,
                            const struct attn_scored_block *scored, const float *weights,
                            float *product) {
  const struct attn_tile *tile = scored->tiles, *end = tile + scored->tile_count;
  const size_t dim = plan->value_dim;
  for (size_t done = 0; tile < end; done += tile++->rows) {
    struct attn_pv_args args = {.weights = weights + done,
                                .count = scored->count,
                                .stride = scored->stride,
                                .values = tile->values,
                                .rows = tile->rows,
                                .dim = dim,
                                .accumulate = done > 0};
    if (scored->prefetches && tile + 1 == end)
      args.prefetch = scored->prefetch;
    else if (scored->prefetches)
      args.prefetch = attn_prefetch_values(tile + 1, dim);
    plan->kernels->gemm_pv(&args, product);
  }
}

attn_status attn_fold_f32(const struct attn_fold *fold, const struct attn_fold_plan *plan,
                          const struct attn_scored_block *scored, float *scores,
                          const struct attn_partial *partial) {
  const size_t rows = scored->rows, stride = scored->stride, first = scored->tiles->first;
  attn_status status = ATTN_OK;
  for (size_t q = 0; q < scored->count && status == ATTN_OK; q++) {
    const size_t state = scored->first + q;
    float *row = scores + q * stride;
    const double most = (double)plan->kernels->row_max(row, rows);
    if (plan->top > 0 && most > fold->largest[state].threshold)
      status = attn_selection_offer_floats(&fold->largest[state], row, rows, first, plan->kernels);
    partial->max[q] = most;
    partial->sum[q] = plan->kernels->row_exp(row, rows, fmaxf((float)most, -FLT_MAX));
    if (plan->weights) {
      memcpy(weights_at(plan, scored, q), row, rows * sizeof *row);
      set_anchors(plan, scored, q, most);
    }
    const struct attn_tile *tile = scored->tiles;
    for (size_t done = 0; done < rows && tile->values.scales; done += tile++->rows)
      plan->kernels->row_times(row + done, tile->values.scales, tile->rows);
  }
  if (status == ATTN_OK) multiply_values(plan, scored, scores, partial->product);
  return status;
}

/* A partial below the maximum so far is scaled down by a factor in float32, which is as exact
 * as its weights are, and spares a call of exp() for each query and key block. */
void attn_fold_add(struct attn_fold *fold, const struct attn_fold_plan *plan, size_t first,
                   size_t count, const struct attn_partial *partial) {
  const size_t dim = plan->value_dim;
  double before[ATTN_QUERY_BLOCK];
  float factors[ATTN_QUERY_BLOCK];
  for (size_t q = 0; q < count; q++) {
    before[q] = raise_max(fold, first + q, partial->max[q], 1);
    factors[q] = partial->max[q] < fold->max[first + q]
                     ? (float)(partial->max[q] - fold->max[first + q])
                     : 0;
  }
  plan->kernels->row_exp(factors, count, 0);
  for (size_t q = 0; q < count; q++) {
    fold->sum[first + q] += (double)factors[q] * partial->sum[q];
    plan->kernels->row_fold(fold->outputs + (first + q) * dim, partial->product + q * dim, dim,
                            before[q], (double)factors[q]);
  }
}

/* ---- float64 ---- */

static double largest_of(const double *values, size_t n) {
  double most = -INFINITY;
  for (size_t i = 0; i < n; i++)
    most = fmax(most, values[i]);
  return most;
}

/* Scores become weights relative to the running maximum; returns the anchor. */
static double soften(struct attn_fold *fold, const struct attn_fold_plan *plan, size_t state,
                     double *row, size_t rows) {
  raise_max_at_once(fold, plan, state, largest_of(row, rows));
  double sum = 0;
  for (size_t i = 0; i < rows; i++)
    sum += row[i] = exp(plan->beta * (row[i] - fold->max[state]));
  fold->sum[state] += sum;
  return fold->max[state];
}

static double logistic(double a) {
  return 1 / (1 + exp(-a));
}

/* The anchor is the largest weight of the tile, so that what goes to the
 * reply's float32 buffer keeps its digits however large the scores are. */
static double weigh_mass(struct attn_fold *fold, const struct attn_fold_plan *plan, size_t state,
                         double *row, size_t rows) {
  const bool sigmoid = plan->norm->kind->rule == RULE_SIGMOID;
  double sum = 0, anchor = 0;
  for (size_t i = 0; i < rows; i++) {
    if (sigmoid) row[i] = logistic(row[i]);
    sum += row[i];
    anchor = fmax(anchor, fabs(row[i]));
  }
  fold->sum[state] += sum;
  return anchor;
}

static attn_status keep_extremes(struct attn_fold *fold, size_t state, const double *row,
                                 const struct attn_tile *tile) {
  attn_status status = attn_selection_offer(&fold->largest[state], row, tile->rows, tile->first, 1);
  if (status == ATTN_OK && fold->smallest)
    status = attn_selection_offer(&fold->smallest[state], row, tile->rows, tile->first, -1);
  return status;
}

static void store_weights(const struct attn_fold_plan *plan, const struct attn_scored_block *scored,
                          size_t q, const double *row, double anchor) {
  float *to = weights_at(plan, scored, q);
  const double divisor = plan->soft || anchor == 0 ? 1 : anchor;
  for (size_t i = 0; i < scored->rows; i++)
    to[i] = (float)(row[i] / divisor);
  set_anchors(plan, scored, q, plan->soft ? anchor : divisor);
}

attn_status attn_fold_f64(struct attn_fold *fold, const struct attn_fold_plan *plan,
                          const struct attn_scored_block *scored, double *scores,
                          const double *values_f64) {
  const size_t rows = scored->rows, dim = plan->value_dim;
  attn_status status = ATTN_OK;
  for (size_t q = 0; q < scored->count && status == ATTN_OK; q++) {
    const size_t state = scored->first + q;
    double *row = scores + q * rows;
    if (plan->top > 0) status = keep_extremes(fold, state, row, scored->tiles);
    const double anchor = plan->soft ? soften(fold, plan, state, row, rows)
                                     : weigh_mass(fold, plan, state, row, rows);
    if (plan->weights) store_weights(plan, scored, q, row, anchor);
  }
  const struct attn_gemm_f64 product = {.a = scores,
                                        .b = values_f64,
                                        .c = fold->outputs + scored->first * dim,
                                        .m = scored->count,
                                        .n = dim,
                                        .k = rows,
                                        .lda = rows,
                                        .ldb = dim,
                                        .ldc = dim};
  if (status == ATTN_OK) plan->kernels->gemm_f64(&product);
  return status;
}

/* ---- The end of a pass ---- */

attn_status attn_fold_merge(struct attn_fold *into, const struct attn_fold *from,
                            const struct attn_fold_plan *plan, size_t q) {
  const size_t dim = plan->value_dim;
  double factor = 1;
  if (plan->soft) {
    raise_max_at_once(into, plan, q, from->max[q]);
    factor = from->sum[q] != 0 ? exp(plan->beta * (from->max[q] - into->max[q])) : 0;
  }
  into->sum[q] += factor * from->sum[q];
  plan->kernels->row_add_f64(into->outputs + q * dim, from->outputs + q * dim, dim, factor);
  attn_status status = ATTN_OK;
  if (into->largest) status = attn_selection_merge(&into->largest[q], &from->largest[q]);
  if (status == ATTN_OK && into->smallest)
    status = attn_selection_merge(&into->smallest[q], &from->smallest[q]);
  return status;
}

static bool divides_by_sum(const struct attn_fold_plan *plan) {
  return plan->soft || plan->norm->kind->rule == RULE_SUM;
}

double attn_fold_factor(const struct attn_fold *fold, const struct attn_fold_plan *plan, size_t q,
                        double anchor) {
  const double sum = divides_by_sum(plan) ? fold->sum[q] : 1;
  if (sum == 0) return 0;
  if (!plan->soft) return anchor / sum;
  return exp(plan->beta * (anchor - fold->max[q])) / sum;
}

double attn_fold_weight(const struct attn_fold *fold, const struct attn_fold_plan *plan, size_t q,
                        double score) {
  if (plan->soft) return attn_fold_factor(fold, plan, q, score);
  const bool sigmoid = plan->norm->kind->rule == RULE_SIGMOID;
  return (sigmoid ? logistic(score) : score) * attn_fold_factor(fold, plan, q, 1);
}
