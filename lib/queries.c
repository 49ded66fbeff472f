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

#include <math.h>
#include <string.h>

#include "kernels.h"
#include "pool.h"
#include "project.h"

/* In float64: queries are few, and an error made here would be met again by every key. */
static struct attn_projection projection_of(const attn_score *score) {
  const struct attn_params *params = &score->params;
  return (struct attn_projection){.matrix = params->tensor[0],
                                  .rows = params->rows[0],
                                  .cols = params->cols[0],
                                  .transposed = score->kind->base == BASE_ADDITIVE};
}

static double norm_of(const double *row, size_t dim) {
  double sum;
  attn_kernels()->row_dot_exact(&sum, row, row, 1, dim);
  return sqrt(sum);
}

/* What a float32 query has in it: scale, 1/temperature and cosine's 1/|q|. */
static double factor_of(const struct attn_query_map *map, double coefficient, double norm) {
  if (map->score->kind->base == BASE_COSINE) return norm > 0 ? coefficient / norm : 0;
  return coefficient;
}

static double coefficient_of(const struct attn_query_map *map) {
  const struct score_kind *kind = map->score->kind;
  if (kind->base != BASE_DOT && kind->base != BASE_COSINE) return 1;
  double numbers[ATTN_PARAMS_MAX];
  attn_score_numbers(map->score, map->key_dim, numbers);
  return kind->coefficient(numbers, map->log) * map->beta;
}

/* Queries of so many numbers are mapped by several workers. */
enum { MAP_LEAST = 1 << 13 };

struct mapping {
  struct attn_queries *mapped;
  const struct attn_query_map *map;
  const float *queries;
  double *given; /* in float64: all of them, or one row for each slice */
  size_t query_dim, slices;
  bool all, projected;
  double coefficient;
};

static void map_query(const struct mapping *mapping, size_t q, double *row) {
  const struct attn_kernels *kernels = attn_kernels();
  const struct attn_query_map *map = mapping->map;
  struct attn_queries *mapped = mapping->mapped;
  const size_t dim = mapped->dim;
  if (!mapping->projected) kernels->row_widen(row, mapping->queries + mapped->which[q] * dim, dim);
  mapped->norms[q] = norm_of(row, dim);
  if (!map->fast) return;
  const double factor = factor_of(map, mapping->coefficient, mapped->norms[q]);
  mapped->reach[q] = mapped->norms[q] * fabs(factor);
  kernels->row_narrow(mapped->fast + q * dim, row, dim, factor);
}

static void map_slice(void *argument, size_t slice) {
  const struct mapping *mapping = argument;
  const struct attn_queries *mapped = mapping->mapped;
  const size_t end = attn_cut(mapped->count, mapping->slices, slice + 1);
  for (size_t q = attn_cut(mapped->count, mapping->slices, slice); q < end; q++)
    map_query(mapping, q,
              mapping->all ? mapped->exact + q * mapped->dim
                           : mapping->given + slice * mapping->query_dim);
}

attn_status attn_queries_map(struct attn_queries *mapped, struct attn_room *room,
                             const struct attn_query_map *map, const float *queries,
                             const size_t *which, size_t count) {
  const struct attn_projection by = projection_of(map->score);
  const size_t query_dim = map->query_dim;
  *mapped = (struct attn_queries){.count = count, .dim = query_dim, .which = which};
  if (by.matrix) mapped->dim = attn_projection_outputs(&by);
  const size_t dim = mapped->dim, numbers = attn_size_times(count, dim);
  struct mapping mapping = {.mapped = mapped,
                            .map = map,
                            .queries = queries,
                            .query_dim = query_dim,
                            .slices = numbers >= MAP_LEAST ? ATTN_SLICES : 1,
                            .all = map->exact || by.matrix,
                            .projected = by.matrix,
                            .coefficient = coefficient_of(map)};
  const size_t rows = mapping.all ? count : mapping.slices;
  mapping.given = attn_room_take(room, attn_size_times(rows, query_dim), sizeof *mapping.given);
  mapped->norms = attn_room_take(room, count, sizeof *mapped->norms);
  if (!mapping.given || !mapped->norms) return ATTN_NO_MEMORY;
  if (map->fast) {
    mapped->fast = attn_room_take(room, numbers, sizeof *mapped->fast);
    mapped->reach = attn_room_take(room, count, sizeof *mapped->reach);
    if (!mapped->fast || !mapped->reach) return ATTN_NO_MEMORY;
  }
  mapped->exact = mapping.all ? mapping.given : NULL;
  if (by.matrix) {
    for (size_t q = 0; q < count; q++)
      attn_kernels()->row_widen(mapping.given + q * query_dim, queries + which[q] * query_dim,
                                query_dim);
    mapped->exact = attn_room_take(room, numbers, sizeof *mapped->exact);
    if (!mapped->exact) return ATTN_NO_MEMORY;
    const attn_status status = attn_project(&by, room, mapping.given, count, mapped->exact);
    if (status != ATTN_OK) return status;
  }
  attn_pool_run(room->pool, mapping.slices, map_slice, &mapping);
  return ATTN_OK;
}

void attn_queries_move(struct attn_queries *mapped, size_t from, size_t to) {
  const size_t dim = mapped->dim;
  if (from == to) return;
  mapped->norms[to] = mapped->norms[from];
  if (mapped->exact)
    memcpy(mapped->exact + to * dim, mapped->exact + from * dim, dim * sizeof *mapped->exact);
  if (!mapped->fast) return;
  memcpy(mapped->fast + to * dim, mapped->fast + from * dim, dim * sizeof *mapped->fast);
  mapped->reach[to] = mapped->reach[from];
}
