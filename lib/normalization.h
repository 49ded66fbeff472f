/* Normalizations as the computing files see them. */
#ifndef ATTN_NORMALIZATION_H
#define ATTN_NORMALIZATION_H

#include <stdatomic.h>

#include "params.h"

enum norm_rule {
  RULE_SOFTMAX,
  RULE_SUM,
  RULE_NONE,
  RULE_HARDMAX,
  RULE_SPARSEMAX,
  RULE_ENTMAX15,
  RULE_SIGMOID
};

struct norm_kind {
  attn_normalization_info info;
  enum norm_rule rule;
  /* A row whose score is this far below the largest one has weight 0 for sure;
   * 0 where no such distance exists. */
  double window;
};

struct attn_normalization {
  const struct norm_kind *kind;
  struct attn_params params;
  double inverse_temperature; /* 1 but for softmax */
  size_t top_k;               /* 0: all rows */
  atomic_size_t references;
};

#endif
