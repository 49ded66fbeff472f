/* Few rows out of many: the k best, or all that can still get weight. */
#ifndef ATTN_SELECT_H
#define ATTN_SELECT_H

#include "kernels/kernels.h"
#include "normalization.h"

/* A row that may get weight. Sorted, the larger score comes first and among
 * equals the lower row: the order in which ties are won. */
struct attn_candidate {
  double score, weight;
  size_t row;
};

/* How far off offered scores may be, as they come from float32: by `absolute`
 * plus `relative` times their size. Exact ones have {0, 0}. */
struct attn_margin {
  double absolute, relative;
};

/* Either the `most` best (most > 0), or every row within `window` of the best
 * one (most == 0), or, with a margin, whatever may be one of them. Rows have to
 * be offered in ascending order. */
struct attn_selection {
  size_t most;
  double window;
  struct attn_margin margin;
  double threshold; /* what isn't above it is out for good */
  size_t count, capacity;
  struct attn_candidate *items; /* in no order */
};

void attn_selection_init(struct attn_selection *selection, size_t most, double window,
                         struct attn_margin margin);
void attn_selection_free(struct attn_selection *selection);

/* Offers rows first, first + 1, ...; `sign` -1 ranks the smallest first. */
attn_status attn_selection_offer(struct attn_selection *selection, const double *scores,
                                 size_t count, size_t first, double sign);
attn_status attn_selection_offer_floats(struct attn_selection *selection, const float *scores,
                                        size_t count, size_t first,
                                        const struct attn_kernels *kernels);

/* Adds what another one holds, of rows that all lie behind this one's. */
attn_status attn_selection_merge(struct attn_selection *into, const struct attn_selection *from);

/* Drops what further offers have beaten. */
void attn_selection_narrow(struct attn_selection *selection);

/* Sorts the candidates, whose scores are exact by now, and keeps those that
 * the selection is for. */
void attn_selection_sort(struct attn_selection *selection);

/* The rule's weights for sorted candidates; all other rows have weight 0.
 * `log`: the scores are logarithms of what `sum` adds. */
void attn_selection_weigh(struct attn_selection *selection, const attn_normalization *norm,
                          bool log);

/* By weight as float32, largest first, the lower row first on a tie: the order
 * of a reply. */
void attn_candidates_order(struct attn_candidate *items, size_t count);

#endif
