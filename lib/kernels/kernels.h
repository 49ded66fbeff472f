/* The vectorised loops, behind pointers set once.
 *
 * lib/kernels/kernels.c is one source in plain C over vectors; the Makefile compiles it
 * once per instruction set and attn_init() picks the best one that this CPU
 * can run, attn_init_with() any of those. */
#ifndef ATTN_KERNELS_H
#define ATTN_KERNELS_H

#include "memory/dtype.h"

/* What will be read next: it is prefetched while something else is computed. NULL,
 * 0: nothing. */
struct attn_prefetch {
  const void *data;
  size_t bytes;
};

struct attn_panels {
  const float *queries; /* count x dim */
  size_t count, dim;
  struct attn_numbers keys; /* panel_count x dim x 16 */
  size_t panel_count;
  struct attn_prefetch prefetch;
};

struct attn_pv_args {
  const float *weights; /* count x stride; for values with scales: times the row's */
  size_t count, stride;
  struct attn_numbers values; /* rows x dim */
  size_t rows, dim;
  bool accumulate; /* add to the outputs, which are sums of earlier rows */
  struct attn_prefetch prefetch;
};

/* c += a . b in float64, all row-major: m x k by k x n, rows lda, ldb, ldc apart. */
struct attn_gemm_f64 {
  const double *a, *b;
  double *c;
  size_t m, n, k, lda, ldb, ldc;
};

struct attn_kernels {
  const char *name;
  /* The largest of n >= 1 scores. */
  float (*row_max)(const float *scores, size_t n);
  /* How many of the first scores are not above the threshold: n where none is. */
  size_t (*row_skip)(const float *scores, size_t n, double threshold);
  /* scores[i] = exp(scores[i] - max), 0 below about e^-87; returns the sum. */
  double (*row_exp)(float *scores, size_t n, float max);
  /* scores[i] = c * sqrt(scores[i]) */
  void (*row_sqrt)(float *scores, size_t n, float c);
  /* scores[i] *= factors[i] */
  void (*row_times)(float *scores, const float *factors, size_t n);
  /* scores[i] = c * scores[i] */
  void (*row_scale)(float *scores, size_t n, float c);
  /* weights[i] *= factor, in float64; false where one is not finite any more. */
  bool (*row_finish)(float *weights, size_t n, double factor);
  /* scores[r] += v * tanh(query + hidden[r]), or = where `first` */
  void (*row_additive)(float *scores, const float *hidden, size_t n, float query, float v,
                       bool first);

  /* Queries against panels of keys: scores[q * stride + r] is the product (if keys
   * have scales: still to be multiplied by the key's), or the squared distance.
   * What is computed for a pair depends on its query and its key alone, not on
   * their places or their neighbours: equal keys tie, and a query gets the same
   * answer alone and in a batch. */
  void (*panels_dot)(const struct attn_panels *panels, float *scores, size_t stride);
  void (*panels_distance2)(const struct attn_panels *panels, float *scores, size_t stride);
  /* The weights times the values (FlashAttention's P V):
   * outputs[q * dim + i] = sum_r weights[q * stride + r] * values[r * dim + i], or +=;
   * reads up to 16 numbers past the values. */
  void (*gemm_pv)(const struct attn_pv_args *args, float *outputs);
  /* sums[i] = before * sums[i] + factor * terms[i] */
  void (*row_fold)(double *sums, const float *terms, size_t n, double before, double factor);
  /* to[i] = from[i] */
  void (*row_widen)(double *to, const float *from, size_t n);
  /* to[i] = factor * from[i] */
  void (*row_narrow)(float *to, const double *from, size_t n, double factor);
  /* sums[i] *= factor */
  void (*row_scale_f64)(double *sums, size_t n, double factor);
  /* sums[i] += factor * terms[i] */
  void (*row_add_f64)(double *sums, const double *terms, size_t n, double factor);
  /* Neither infinite nor NaN. */
  bool (*all_finite)(const float *numbers, size_t n);

  /* to[r * dim + i] as they are kept, with scales: keys from their panels, and
   * values, past which up to 16 numbers are read. */
  void (*widen_keys)(double *to, const struct attn_numbers *keys, size_t rows, size_t dim);
  void (*widen_values)(double *to, const struct attn_numbers *values, size_t rows, size_t dim);
  /* Each sum takes its terms one by one, in their order, so a row of c depends on its row
   * of a alone: the same bits in a batch of any size. */
  void (*gemm_f64)(const struct attn_gemm_f64 *gemm);
  /* In float64: scores[r] = query . keys[r], and the distance of the two. What
   * is computed for a row depends on nothing but that row and the query, so
   * equal keys get equal scores and ties are ties. */
  void (*row_dot_f64)(double *scores, const double *query, const double *keys, size_t rows,
                      size_t dim);
  void (*row_distance_f64)(double *scores, const double *query, const double *keys, size_t rows,
                           size_t dim);
};

/* The ones in use. */
const struct attn_kernels *attn_kernels(void);

/* Those that this CPU can run, the best one last; NULL past the end. */
const struct attn_kernels *attn_kernels_at(size_t index);

extern const struct attn_kernels attn_kernels_portable;
#if defined(__x86_64__)
extern const struct attn_kernels attn_kernels_avx2;
extern const struct attn_kernels attn_kernels_avx512;
#elif defined(__aarch64__)
extern const struct attn_kernels attn_kernels_neon;
#endif

#endif
