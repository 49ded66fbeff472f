/* The float64 loops, and the conversions between float32 and float64. A part of
 * lib/kernels/kernels.c, which alone includes it. */
#ifndef ATTN_F64_H
#define ATTN_F64_H

#include <math.h>

#include "kernels/kernels.h"
#include "kernels/lanes.h"
#include "memory/panel.h"

static void row_fold(double *sums, const float *terms, size_t n, double before, double factor) {
  for (size_t i = 0; i < n; i++)
    sums[i] = before * sums[i] + factor * (double)terms[i];
}

static void row_widen(double *to, const float *from, size_t n) {
  for (size_t i = 0; i < n; i++)
    to[i] = (double)from[i];
}

static void row_narrow(float *to, const double *from, size_t n, double factor) {
  for (size_t i = 0; i < n; i++)
    to[i] = (float)(factor * from[i]);
}

static void row_scale_f64(double *sums, size_t n, double factor) {
  for (size_t i = 0; i < n; i++)
    sums[i] *= factor;
}

static void row_add_f64(double *sums, const double *terms, size_t n, double factor) {
  for (size_t i = 0; i < n; i++)
    sums[i] += factor * terms[i];
}

enum { F64_LANES = LANES / 2 };
typedef double vec_f64 __attribute__((vector_size(LANES * 4)));
typedef double vec_f64_unaligned __attribute__((vector_size(LANES * 4), aligned(8), may_alias));

static inline vec_f64 load_f64(const double *from) {
  return *(const vec_f64_unaligned *)(const void *)from;
}

static inline void store_f64(double *to, vec_f64 v) {
  *(vec_f64_unaligned *)(void *)to = v;
}

/* As plus_product() in lanes.h. */
INLINE vec_f64 plus_product_f64(vec_f64 sum, vec_f64 a, vec_f64 b) {
#if LANES == 16
  return (vec_f64)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)sum);
#elif LANES == 8
  return (vec_f64)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)sum);
#elif defined(ATTN_KERNEL_NEON)
  return (vec_f64)vfmaq_f64((float64x2_t)sum, (float64x2_t)a, (float64x2_t)b);
#else
  return sum + a * b;
#endif
}

static inline double sum_f64(const vec_f64 sum[CHAINS]) {
  const vec_f64 total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  double result = 0;
  for (size_t l = 0; l < F64_LANES; l++)
    result += total[l];
  return result;
}

static inline double dot_f64(const double *query, const double *key, size_t dim) {
  vec_f64 sum[CHAINS] = {{0}};
  size_t i = 0;
  for (; i + CHAINS * F64_LANES <= dim; i += CHAINS * F64_LANES)
    for (size_t c = 0; c < CHAINS; c++)
      sum[c] = plus_product_f64(sum[c], load_f64(query + i + c * F64_LANES),
                                load_f64(key + i + c * F64_LANES));
  double rest = 0;
  for (; i < dim; i++)
    rest += query[i] * key[i];
  return sum_f64(sum) + rest;
}

static inline double distance_f64(const double *query, const double *key, size_t dim) {
  vec_f64 sum[CHAINS] = {{0}};
  size_t i = 0;
  for (; i + CHAINS * F64_LANES <= dim; i += CHAINS * F64_LANES)
    for (size_t c = 0; c < CHAINS; c++) {
      const vec_f64 d = load_f64(query + i + c * F64_LANES) - load_f64(key + i + c * F64_LANES);
      sum[c] = plus_product_f64(sum[c], d, d);
    }
  double rest = 0;
  for (; i < dim; i++)
    rest += (query[i] - key[i]) * (query[i] - key[i]);
  return sqrt(sum_f64(sum) + rest);
}

/* ---- Products of matrices ----
 * A block of sums stays in registers while the terms go by: so many rows of `a`, times so
 * many vectors of a row of `b`. The registers hold the sums, a row's vectors and a factor. */
#if LANES == 16 || defined(ATTN_KERNEL_NEON) /* 32 registers */
enum { BLOCK_ROWS = 8 };
#else
enum { BLOCK_ROWS = 4 };
#endif
enum { BLOCK_VECS = 3 };

/* Terms that go by before the next columns are taken, so that the part of b that all rows
 * of a are multiplied by stays in the first-level cache, or next to it. */
enum { BLOCK_TERMS = 256 };

struct block_f64 {
  const double *a, *b;
  double *c;
  size_t lda, ldb, ldc, terms;
};

INLINE void gemm_block(const struct block_f64 *block, size_t rows, size_t vecs) {
  vec_f64 sums[BLOCK_ROWS][BLOCK_VECS];
  for (size_t q = 0; q < rows; q++)
    for (size_t v = 0; v < vecs; v++)
      sums[q][v] = load_f64(block->c + q * block->ldc + v * F64_LANES);
  for (size_t t = 0; t < block->terms; t++) {
    vec_f64 row[BLOCK_VECS];
    for (size_t v = 0; v < vecs; v++)
      row[v] = load_f64(block->b + t * block->ldb + v * F64_LANES);
    for (size_t q = 0; q < rows; q++) {
      const vec_f64 factor = block->a[q * block->lda + t] - (vec_f64){0};
      for (size_t v = 0; v < vecs; v++)
        sums[q][v] = plus_product_f64(sums[q][v], factor, row[v]);
    }
  }
  for (size_t q = 0; q < rows; q++)
    for (size_t v = 0; v < vecs; v++)
      store_f64(block->c + q * block->ldc + v * F64_LANES, sums[q][v]);
}

INLINE void gemm_rows(struct block_f64 block, size_t rows, size_t vecs) {
  for (size_t step = BLOCK_ROWS; rows > 0; rows -= step) {
    while (step > rows)
      step /= 2;
    if (step == BLOCK_ROWS)
      gemm_block(&block, BLOCK_ROWS, vecs);
    else if (step == BLOCK_ROWS / 2)
      gemm_block(&block, BLOCK_ROWS / 2, vecs);
    else if (step == BLOCK_ROWS / 4)
      gemm_block(&block, BLOCK_ROWS / 4, vecs);
    else
      gemm_block(&block, 1, vecs);
    block.a += step * block.lda;
    block.c += step * block.ldc;
  }
}

/* The last columns, fewer than a vector, as whole vectors of a copy. */
static void gemm_last(struct block_f64 block, size_t rows, size_t columns) {
  double b[BLOCK_TERMS * F64_LANES] = {0}, c[BLOCK_ROWS * F64_LANES] = {0};
  struct block_f64 copy = {.a = block.a,
                           .b = b,
                           .c = c,
                           .lda = block.lda,
                           .ldb = F64_LANES,
                           .ldc = F64_LANES,
                           .terms = block.terms};
  for (size_t t = 0; t < block.terms; t++)
    memcpy(b + t * F64_LANES, block.b + t * block.ldb, columns * sizeof *b);
  for (size_t q = 0; q < rows; q += BLOCK_ROWS, copy.a += BLOCK_ROWS * copy.lda) {
    const size_t n = rows - q < BLOCK_ROWS ? rows - q : BLOCK_ROWS;
    double *sums = block.c + q * block.ldc;
    for (size_t i = 0; i < n; i++)
      memcpy(c + i * F64_LANES, sums + i * block.ldc, columns * sizeof *c);
    gemm_rows(copy, n, 1);
    for (size_t i = 0; i < n; i++)
      memcpy(sums + i * block.ldc, c + i * F64_LANES, columns * sizeof *c);
  }
}

static void gemm_f64(const struct attn_gemm_f64 *gemm) {
  enum { COLUMNS = BLOCK_VECS * F64_LANES };
  for (size_t t = 0; t < gemm->k; t += BLOCK_TERMS) {
    struct block_f64 block = {.a = gemm->a + t,
                              .b = gemm->b + t * gemm->ldb,
                              .c = gemm->c,
                              .lda = gemm->lda,
                              .ldb = gemm->ldb,
                              .ldc = gemm->ldc,
                              .terms = gemm->k - t < BLOCK_TERMS ? gemm->k - t : BLOCK_TERMS};
    size_t left = gemm->n;
    for (; left >= COLUMNS; left -= COLUMNS, block.b += COLUMNS, block.c += COLUMNS)
      gemm_rows(block, gemm->m, BLOCK_VECS);
    for (; left >= F64_LANES; left -= F64_LANES, block.b += F64_LANES, block.c += F64_LANES)
      gemm_rows(block, gemm->m, 1);
    if (left > 0) gemm_last(block, gemm->m, left);
  }
}

typedef float half __attribute__((vector_size(LANES * 2)));
typedef float half_unaligned __attribute__((vector_size(LANES * 2), aligned(4), may_alias));

/* What is finite times 0 is 0, anything else NaN, and stays so in a sum. */
static bool row_finish(float *weights, size_t n, double factor) {
  float strange = 0;
  half sum = {0};
  size_t i = 0;
  for (; i + F64_LANES <= n; i += F64_LANES) {
    half_unaligned *at = (half_unaligned *)(void *)(weights + i);
    const half final =
        __builtin_convertvector(__builtin_convertvector((half)*at, vec_f64) * factor, half);
    *at = final;
    sum += final * 0.0f;
  }
  for (; i < n; i++) {
    weights[i] = (float)((double)weights[i] * factor);
    strange += weights[i] * 0.0f;
  }
  for (size_t l = 0; l < F64_LANES; l++)
    strange += sum[l];
  return strange == 0;
}

INLINE void widen_vec(double *to, size_t stride, vec from, size_t n) {
  float lanes[LANES];
  store(lanes, from);
  for (size_t l = 0; l < n; l++)
    to[l * stride] = (double)lanes[l];
}

INLINE void keys_to_rows(attn_dtype dtype, double *to, const struct attn_numbers *keys, size_t rows,
                         size_t dim) {
  for (size_t row = 0; row < rows; row += LANES) {
    const size_t n = rows - row < LANES ? rows - row : LANES;
    const size_t place = row / ATTN_PANEL * ATTN_PANEL * dim + row % ATTN_PANEL;
    for (size_t j = 0; j < dim; j++) {
      vec key = load_numbers(dtype, keys->data, place + j * ATTN_PANEL);
      if (dtype == ATTN_INT8) key *= load(keys->scales + row);
      if (n == LANES)
        widen_vec(to + row * dim + j, dim, key, LANES);
      else
        widen_vec(to + row * dim + j, dim, key, n);
    }
  }
}

INLINE void values_to_rows(attn_dtype dtype, double *to, const struct attn_numbers *values,
                           size_t rows, size_t dim) {
  if (dtype != ATTN_INT8) { /* no row is unlike the others */
    dim *= rows;
    rows = 1;
  }
  for (size_t row = 0; row < rows; row++, to += dim)
    for (size_t i = 0; i < dim; i += LANES) {
      vec value = load_numbers(dtype, values->data, row * dim + i);
      if (dtype == ATTN_INT8) value *= values->scales[row];
      if (dim - i >= LANES)
        widen_vec(to + i, 1, value, LANES);
      else
        widen_vec(to + i, 1, value, dim - i);
    }
}

static void widen_keys(double *to, const struct attn_numbers *keys, size_t rows, size_t dim) {
  BY_DTYPE(keys->dtype, keys_to_rows, to, keys, rows, dim)
}

static void widen_values(double *to, const struct attn_numbers *values, size_t rows, size_t dim) {
  BY_DTYPE(values->dtype, values_to_rows, to, values, rows, dim)
}

static void row_dot_f64(double *scores, const double *query, const double *keys, size_t rows,
                        size_t dim) {
  for (size_t r = 0; r < rows; r++)
    scores[r] = dot_f64(query, keys + r * dim, dim);
}

static void row_distance_f64(double *scores, const double *query, const double *keys, size_t rows,
                             size_t dim) {
  for (size_t r = 0; r < rows; r++)
    scores[r] = distance_f64(query, keys + r * dim, dim);
}

#endif
