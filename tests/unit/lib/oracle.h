/* The textbook in float64: what every other file of the library is tested
 * against. Written to be read, one formula at a time, with no thought of
 * speed; only tests may call it. */
#ifndef ATTN_ORACLE_H
#define ATTN_ORACLE_H

#include "attention.h"

/* A whole problem, given as the caller of the library would give it. The
 * scores' and normalizations' arguments are those of attn_score_create() and
 * attn_normalization_create(); what is left out takes its default. */
typedef struct attn_oracle_problem {
  const float *keys, *values, *queries;
  size_t rows, key_dim, value_dim, query_count, query_dim;
  const char *score;
  const attn_argument *score_args;
  size_t score_arg_count;
  const char *normalization;
  const attn_argument *normalization_args;
  size_t normalization_arg_count;
} attn_oracle_problem;

/* Fills outputs (query_count x value_dim), weights (query_count x rows) and,
 * where `scores` isn't NULL, the raw scores a(q, k) (query_count x rows). */
attn_status attn_oracle_attend(const attn_oracle_problem *problem, double *outputs, double *weights,
                               double *scores);

#endif
