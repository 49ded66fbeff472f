/* From what a pass has found out about a query to its place in the reply. */
#ifndef ATTN_ANSWER_H
#define ATTN_ANSWER_H

#include "attend/pass.h"

struct attn_finish_args {
  const struct attn_pass_plan *plan;
  const struct attn_queries *queries;
  const struct attn_fold_plan *fold_plan; /* of a fold, whose splits are merged */
  struct attn_scorer *rescorer; /* of a selection: float64, for candidates that float32 has found */
};

/* All that is asked of a selection, whose splits are merged: outputs and weights. */
attn_status attn_answer_selection(const struct attn_finish_args *args, size_t q,
                                  struct attn_selection *selection);

/* The outputs of a fold and, where they are wanted, its largest weights. */
attn_status attn_answer_fold(const struct attn_finish_args *args, size_t q, struct attn_fold *fold);

/* The weights of the rows in tiles [begin, end), which a fold has left relative to their
 * tile's largest score. */
attn_status attn_answer_weights(const struct attn_finish_args *args, size_t q,
                                const struct attn_fold *fold, size_t begin, size_t end);

#endif
