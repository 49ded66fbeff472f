/* Normalizations that fold tile by tile: a running state per query, merged
 * over the splits at the end. */
#ifndef ATTN_FOLD_H
#define ATTN_FOLD_H

#include "attend/arena.h"
#include "attend/select.h"
#include "kernels/kernels.h"
#include "memory/snapshot.h"
#include "normalization.h"

/* What is folded, besides the state: read-only during a pass.
 *
 * Full weights go straight to the reply's buffer, before they are final: what
 * is written is the weight divided by a factor that only the end of the pass
 * knows. That factor depends on the `anchor` of the query's tile. */
struct attn_fold_plan {
  const attn_normalization *norm;
  const struct attn_kernels *kernels;
  bool soft;   /* weights exp(beta (a - max)); else a itself, or its sigmoid */
  double beta; /* soft in float64; in float32 the scores have it already */
  size_t value_dim;
  size_t rows;     /* of the memory */
  size_t top;      /* largest weights to keep; 0: none */
  float *weights;  /* the request's matrix, or NULL */
  double *anchors; /* with weights: queries x tiles */
  size_t tile_count;
};

/* The states of the queries of a pass in one split. */
struct attn_fold {
  size_t count;
  double *max;                     /* soft: the largest score so far */
  double *sum;                     /* of the weights, relative to max when soft */
  double *outputs;                 /* count x value_dim: sum of weight * value, likewise */
  struct attn_selection *largest;  /* with top: by score */
  struct attn_selection *smallest; /* ... for `sum`, whose total may be negative */
};

/* The states are in the arena, and not begun. */
attn_status attn_fold_create(struct attn_fold *fold, struct attn_arena *arena,
                             const struct attn_fold_plan *plan, size_t count);
void attn_fold_free(struct attn_fold *fold);

/* Begins the states of queries first .. end - 1. */
void attn_fold_begin(struct attn_fold *fold, const struct attn_fold_plan *plan, size_t first,
                     size_t end);

/* Queries of a query block at most. */
enum { ATTN_QUERY_BLOCK = 32 };

/* The scores of a query block, queries first .. first + count - 1 of the pass, with a key block. */
struct attn_scored_block {
  const struct attn_tile *tiles;
  size_t tile_count, rows;       /* rows: of all these tiles */
  size_t index;                  /* of the first tile, for anchors */
  size_t first, count;           /* queries of the pass */
  const size_t *which;           /* their numbers in the request, from first on */
  size_t stride;                 /* float32: from one query's scores to the next */
  bool prefetches;               /* prefetch what is read next; after the last tile ... */
  struct attn_prefetch prefetch; /* ... this */
};

/* What a key block adds to the states of queries, in float32: weights are relative to the block's
 * own largest scores. */
struct attn_partial {
  double *max, *sum; /* count */
  float *product;    /* count x value_dim: sum of weight * value */
};

/* The scores are overwritten by weights. In float32 they become a partial, whose arrays are the
 * caller's; the states stay as they are but for the largest weights that `top` keeps. Partials
 * are added in the order of the rows. In float64 there is one tile, the stride of the scores is
 * its number of rows, `values_f64` holds its values, and the states are updated at once. */
attn_status attn_fold_f32(const struct attn_fold *fold, const struct attn_fold_plan *plan,
                          const struct attn_scored_block *scored, float *scores,
                          const struct attn_partial *partial);
void attn_fold_add(struct attn_fold *fold, const struct attn_fold_plan *plan, size_t first,
                   size_t count, const struct attn_partial *partial);
attn_status attn_fold_f64(struct attn_fold *fold, const struct attn_fold_plan *plan,
                          const struct attn_scored_block *scored, double *scores,
                          const double *values_f64);

/* Adds query q's state of another split, of later rows, to this one's. */
attn_status attn_fold_merge(struct attn_fold *into, const struct attn_fold *from,
                            const struct attn_fold_plan *plan, size_t q);

/* What a weight that was folded with that anchor is multiplied by to be final;
 * 0 for a query without mass. */
double attn_fold_factor(const struct attn_fold *fold, const struct attn_fold_plan *plan, size_t q,
                        double anchor);

/* The weight of a row with that score. */
double attn_fold_weight(const struct attn_fold *fold, const struct attn_fold_plan *plan, size_t q,
                        double score);

#endif
