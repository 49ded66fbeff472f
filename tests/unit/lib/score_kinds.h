/* Entries of a table of scores: one of each kind of tensor and map, with its formula in float64.
 *
 * The entries are the tests' own; none is in the library. A formula is written from the
 * entry's name and the tensors alone, pair by pair, so that it shares nothing with the maps. */
#ifndef TESTS_UNIT_LIB_SCORE_KINDS_H
#define TESTS_UNIT_LIB_SCORE_KINDS_H

#include "table.h"

#include "score.h"

/* ---- Entries ---- */

#define NUMBER(name_, default_, text_)                                                             \
  {                                                                                                \
    .name = name_, .kind = ATTN_PARAM_NUMBER, .least = -INFINITY, .default_value = default_,       \
    .default_text = text_, .shape = "", .help = name_                                              \
  }
#define TENSOR(kind_, name_, shape_)                                                               \
  {                                                                                                \
    .name = name_, .kind = ATTN_PARAM_##kind_, .required = true, .default_value = NAN,             \
    .default_text = "", .shape = shape_, .help = name_                                             \
  }

static double itself(double base, const double *number) {
  (void)number;
  return base;
}

static double scaled(double base, const double *number) {
  return number[0] * base;
}

static double minus(double base, const double *number) {
  (void)number;
  return -base;
}

static double log_kernel(double base, const double *number) {
  (void)number;
  return -0.5 * base * base;
}

static double kernel(double base, const double *number) {
  return exp(log_kernel(base, number));
}

static double factor_one(const double *number, bool log) {
  (void)number;
  (void)log;
  return 1;
}

static double factor_scale(const double *number, bool log) {
  (void)log;
  return number[0];
}

static double factor_minus(const double *number, bool log) {
  (void)number;
  (void)log;
  return -1;
}

static double factor_kernel(const double *number, bool log) {
  (void)number;
  (void)log;
  return -0.5;
}

static double one_over_dk(size_t index, size_t key_dim) {
  ck_assert_uint_eq(index, 0);
  return 1.0 / (double)key_dim;
}

static const attn_param_info vector_of_keys[] = {TENSOR(VECTOR, "w", "dk")};
static const attn_param_info low_rank_params[] = {
    NUMBER("scale", NAN, "1/dk"), TENSOR(MATRIX, "a", "dq,r"), TENSOR(MATRIX, "b", "dk,r")};
static const attn_param_info matrix_of_keys[] = {TENSOR(MATRIX, "w", "h,dk")};
static const attn_param_info matrix_of_both[] = {TENSOR(MATRIX, "w", "dq,dk")};
static const attn_param_info gated_params[] = {
    TENSOR(VECTOR, "g", "dq"), TENSOR(MATRIX, "w_q", "h,dq"), TENSOR(MATRIX, "w_k", "dk,h"),
    TENSOR(VECTOR, "v", "h")};

#define INFO(name_, params_)                                                                       \
  { .name = name_, .formula = name_, .normalization = "softmax", params_, COUNT(params_) }

/* sum_i w_i q_i k_i */
static const struct score_kind diagonal = {.info = INFO("diagonal", vector_of_keys),
                                           .query_map = {"w"},
                                           .base = BASE_DOT,
                                           .score = itself,
                                           .f32 = SCORE_F32_LINEAR,
                                           .coefficient = factor_one};
/* scale (q^T a) . (b^T k) */
static const struct score_kind low_rank = {.info = INFO("low_rank", low_rank_params),
                                           .query_map = {"a", "b"},
                                           .computed_default = one_over_dk,
                                           .base = BASE_DOT,
                                           .score = scaled,
                                           .f32 = SCORE_F32_LINEAR,
                                           .coefficient = factor_scale};
/* q and k as w leaves them: cos(w q, w k) */
static const struct score_kind mapped_cosine = {.info = INFO("mapped_cosine", matrix_of_keys),
                                                .query_map = {"w"},
                                                .key_map = "w",
                                                .base = BASE_COSINE,
                                                .score = itself,
                                                .f32 = SCORE_F32_LINEAR,
                                                .coefficient = factor_one};
/* -|w (q - k)|, which is Mahalanobis' distance for the matrix w^T w */
static const struct score_kind mahalanobis = {.info = INFO("mahalanobis", matrix_of_keys),
                                              .query_map = {"w"},
                                              .key_map = "w",
                                              .base = BASE_DISTANCE,
                                              .score = minus,
                                              .f32 = SCORE_F32_DISTANCE,
                                              .coefficient = factor_minus};
/* exp(-|w * (q - k)|^2 / 2), a bandwidth for each component */
static const struct score_kind anisotropic = {.info = INFO("anisotropic", vector_of_keys),
                                              .query_map = {"w"},
                                              .key_map = "w",
                                              .base = BASE_DISTANCE,
                                              .score = kernel,
                                              .log_score = log_kernel,
                                              .f32_log = SCORE_F32_SQUARE,
                                              .coefficient = factor_kernel};
/* -|q^T w - k| */
static const struct score_kind moved = {.info = INFO("moved", matrix_of_both),
                                        .query_map = {"w"},
                                        .base = BASE_DISTANCE,
                                        .score = minus,
                                        .f32 = SCORE_F32_DISTANCE,
                                        .coefficient = factor_minus};
/* v . tanh(w_q (g * q) + k^T w_k) */
static const struct score_kind gated = {.info = INFO("gated", gated_params),
                                        .query_map = {"g", "w_q"},
                                        .key_map = "w_k",
                                        .unit_weights = "v",
                                        .base = BASE_ADDITIVE,
                                        .score = itself,
                                        .f32 = SCORE_F32_LINEAR,
                                        .coefficient = factor_one};

/* ---- Formulas ---- */

enum { OWN_DIM = 3 }; /* r and h */

struct sizes {
  size_t dq, dk;
};

/* x^T w, w being [in][out]. */
static double left(const float *w, const double *x, size_t in, size_t out, size_t column) {
  double sum = 0;
  for (size_t i = 0; i < in; i++)
    sum += x[i] * (double)w[i * out + column];
  return sum;
}

/* w x, w being [out][in]. */
static double right(const float *w, const double *x, size_t in, size_t row) {
  double sum = 0;
  for (size_t i = 0; i < in; i++)
    sum += x[i] * (double)w[row * in + i];
  return sum;
}

typedef double formula(const attn_argument *args, struct sizes dim, const double *q,
                       const double *k);

static double formula_diagonal(const attn_argument *args, struct sizes dim, const double *q,
                               const double *k) {
  double sum = 0;
  for (size_t i = 0; i < dim.dk; i++)
    sum += (double)args[0].data[i] * q[i] * k[i];
  return sum;
}

static double formula_low_rank(const attn_argument *args, struct sizes dim, const double *q,
                               const double *k) {
  double sum = 0;
  for (size_t r = 0; r < OWN_DIM; r++)
    sum += left(args[0].data, q, dim.dq, OWN_DIM, r) * left(args[1].data, k, dim.dk, OWN_DIM, r);
  return sum / (double)dim.dk;
}

static double formula_mapped_cosine(const attn_argument *args, struct sizes dim, const double *q,
                                    const double *k) {
  double product = 0, query = 0, key = 0;
  for (size_t h = 0; h < OWN_DIM; h++) {
    const double wq = right(args[0].data, q, dim.dk, h), wk = right(args[0].data, k, dim.dk, h);
    product += wq * wk;
    query += wq * wq;
    key += wk * wk;
  }
  return query * key > 0 ? product / sqrt(query) / sqrt(key) : 0;
}

static double formula_mahalanobis(const attn_argument *args, struct sizes dim, const double *q,
                                  const double *k) {
  double sum = 0;
  for (size_t h = 0; h < OWN_DIM; h++) {
    double unit = 0;
    for (size_t i = 0; i < dim.dk; i++)
      unit += (double)args[0].data[h * dim.dk + i] * (q[i] - k[i]);
    sum += unit * unit;
  }
  return -sqrt(sum);
}

static double formula_anisotropic(const attn_argument *args, struct sizes dim, const double *q,
                                  const double *k) {
  double sum = 0;
  for (size_t i = 0; i < dim.dk; i++)
    sum += pow((double)args[0].data[i] * (q[i] - k[i]), 2);
  return exp(-sum / 2);
}

static double formula_moved(const attn_argument *args, struct sizes dim, const double *q,
                            const double *k) {
  double sum = 0;
  for (size_t i = 0; i < dim.dk; i++)
    sum += pow(left(args[0].data, q, dim.dq, dim.dk, i) - k[i], 2);
  return -sqrt(sum);
}

static double formula_gated(const attn_argument *args, struct sizes dim, const double *q,
                            const double *k) {
  double sum = 0;
  for (size_t h = 0; h < OWN_DIM; h++) {
    double unit = left(args[2].data, k, dim.dk, OWN_DIM, h);
    for (size_t i = 0; i < dim.dq; i++)
      unit += (double)args[1].data[h * dim.dq + i] * (double)args[0].data[i] * q[i];
    sum += (double)args[3].data[h] * tanh(unit);
  }
  return sum;
}

/* Every entry with its formula, and whether float32 may serve it. Tensors have numbers of
 * about `size` over the root of those that are added up. */
static const struct example {
  const struct score_kind *kind;
  formula *formula;
  bool float32;
  double size;
} examples[] = {{&diagonal, formula_diagonal, true, 1},
                {&low_rank, formula_low_rank, true, 2},
                {&mapped_cosine, formula_mapped_cosine, false, 1},
                {&mahalanobis, formula_mahalanobis, false, 1},
                {&anisotropic, formula_anisotropic, false, 1},
                {&moved, formula_moved, false, 1},
                {&gated, formula_gated, false, 1}};

#endif
