/* The query map: what can be done once per query is not done per pair.
 *
 *   bilinear    W^T q, so that the score is a product with the key
 *   cosine      |q|; in float32 also q / |q|. The keys' norms are applied per tile
 *   additive    Wq q
 *
 * On the float32 path scale and 1/temperature are multiplied in as well. The
 * float64 path applies them afterwards (lib/score.c), because a temperature of
 * 1e-300 may only ever meet differences of scores. */
#include "queries.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

/* The matrix that maps a query, transposed or not, as cblas wants it told. */
struct projection {
  const float *matrix;
  size_t rows, cols;
  CBLAS_TRANSPOSE transpose; /* of the right factor in Q * op(matrix) */
};

static struct projection projection_of(const attn_score *score) {
  const struct attn_params *params = &score->params;
  return (struct projection){.matrix = params->tensor[0],
                             .rows = params->rows[0],
                             .cols = params->cols[0],
                             .transpose =
                                 score->kind->base == BASE_ADDITIVE ? CblasTrans : CblasNoTrans};
}

static double *widen(const float *from, size_t count) {
  double *wide = malloc(attn_size_times(count, sizeof *wide));
  for (size_t i = 0; wide && i < count; i++)
    wide[i] = (double)from[i];
  return wide;
}

/* exact = queries * op(matrix), in float64: queries are few, and an error made
 * here would be met again by every key. */
static attn_status project(double *exact, const double *queries, size_t count, size_t query_dim,
                           size_t dim, const struct projection *by) {
  double *matrix = widen(by->matrix, by->rows * by->cols);
  if (!matrix) return ATTN_NO_MEMORY;
  cblas_dgemm(CblasRowMajor, CblasNoTrans, by->transpose, (blasint)count, (blasint)dim,
              (blasint)query_dim, 1.0, queries, (blasint)query_dim, matrix, (blasint)by->cols, 0.0,
              exact, (blasint)dim);
  free(matrix);
  return ATTN_OK;
}

static double norm_of(const double *row, size_t dim) {
  double sum;
  attn_kernels()->row_dot_exact(&sum, row, row, 1, dim);
  return sqrt(sum);
}

/* The float32 queries, with scale, 1/temperature and cosine's 1/|q| in them. */
static attn_status narrow(struct attn_queries *mapped, const struct attn_query_map *map) {
  const struct score_kind *kind = map->score->kind;
  const bool product = kind->base == BASE_DOT || kind->base == BASE_COSINE;
  double numbers[ATTN_PARAMS_MAX];
  attn_score_numbers(map->score, map->key_dim, numbers);
  mapped->fast = malloc(attn_size_times(mapped->count * mapped->dim, sizeof *mapped->fast));
  mapped->reach = malloc(attn_size_times(mapped->count, sizeof *mapped->reach));
  if (!mapped->fast || !mapped->reach) return ATTN_NO_MEMORY;
  for (size_t q = 0; q < mapped->count; q++) {
    double factor = product ? kind->coefficient(numbers, map->log) * map->beta : 1;
    if (kind->base == BASE_COSINE) factor = mapped->norms[q] > 0 ? factor / mapped->norms[q] : 0;
    mapped->reach[q] = mapped->norms[q] * fabs(factor);
    for (size_t i = 0; i < mapped->dim; i++)
      mapped->fast[q * mapped->dim + i] = (float)(mapped->exact[q * mapped->dim + i] * factor);
  }
  return ATTN_OK;
}

attn_status attn_queries_map(struct attn_queries *mapped, const struct attn_query_map *map,
                             const float *queries, const size_t *which, size_t count) {
  const struct projection by = projection_of(map->score);
  *mapped = (struct attn_queries){.count = count, .dim = map->query_dim, .which = which};
  if (by.matrix) mapped->dim = by.transpose == CblasTrans ? by.rows : by.cols;
  attn_status status = ATTN_NO_MEMORY;
  double *given = malloc(attn_size_times(attn_size_times(count, map->query_dim), sizeof *given));
  mapped->norms = malloc(attn_size_times(count, sizeof *mapped->norms));
  if (!given || !mapped->norms) goto done;
  for (size_t q = 0; q < count; q++)
    for (size_t i = 0; i < map->query_dim; i++)
      given[q * map->query_dim + i] = (double)queries[which[q] * map->query_dim + i];

  if (by.matrix) {
    mapped->exact = malloc(attn_size_times(attn_size_times(count, mapped->dim), sizeof(double)));
    if (!mapped->exact) goto done;
    status = project(mapped->exact, given, count, map->query_dim, mapped->dim, &by);
    if (status != ATTN_OK) goto done;
  } else {
    mapped->exact = given;
    given = NULL;
  }
  for (size_t q = 0; q < count; q++)
    mapped->norms[q] = norm_of(mapped->exact + q * mapped->dim, mapped->dim);
  status = map->fast ? narrow(mapped, map) : ATTN_OK;
done:
  free(given);
  return status;
}

void attn_queries_move(struct attn_queries *mapped, size_t from, size_t to) {
  const size_t dim = mapped->dim;
  if (from == to) return;
  memcpy(mapped->exact + to * dim, mapped->exact + from * dim, dim * sizeof *mapped->exact);
  mapped->norms[to] = mapped->norms[from];
  if (!mapped->fast) return;
  memcpy(mapped->fast + to * dim, mapped->fast + from * dim, dim * sizeof *mapped->fast);
  mapped->reach[to] = mapped->reach[from];
}

void attn_queries_free(struct attn_queries *mapped) {
  free(mapped->fast);
  free(mapped->exact);
  free(mapped->norms);
  free(mapped->reach);
  *mapped = (struct attn_queries){0};
}
