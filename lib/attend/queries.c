/* The query map: what can be done once per query is not done per pair.
 *
 *   tensors     those that the score's entry names for the query (maps.c): W^T q of
 *               bilinear, so that the score is a product with the key, Wq q of additive
 *   cosine      |q|; in float32 also q / |q|. The keys' norms are applied per tile
 *
 * On the float32 path scale and 1/temperature are multiplied in as well. The
 * float64 path applies them afterwards (lib/score.c), because a temperature of
 * 1e-300 may only ever meet differences of scores. */
#include "attend/queries.h"

#include <math.h>
#include <string.h>

#include "attend/pool.h"
#include "attend/project.h"
#include "kernels/kernels.h"

/* Rows of float64, one for each query. */
struct rows {
  double *numbers;
  size_t count, dim;
};

static void multiply_by(const struct attn_map_step *step, struct rows *queries) {
  for (size_t q = 0; q < queries->count; q++)
    for (size_t i = 0; i < queries->dim; i++)
      queries->numbers[q * queries->dim + i] *= (double)step->tensor[i];
}

/* In float64: queries are few, and an error made here would be in every score. */
static attn_status project(const struct attn_map_step *step, struct attn_arena *arena,
                           struct rows *queries) {
  const struct attn_projection by = {.matrix = step->tensor,
                                     .rows = step->rows,
                                     .cols = step->cols,
                                     .transposed = step->op == MAP_FROM_RIGHT};
  const size_t dim = attn_projection_outputs(&by);
  double *made = attn_arena_alloc(arena, attn_size_times(queries->count, dim), sizeof *made);
  if (!made) return ATTN_NO_MEMORY;
  const attn_status status = attn_project(&by, arena, queries->numbers, queries->count, made);
  *queries = (struct rows){made, queries->count, dim};
  return status;
}

static attn_status apply_maps(const struct attn_maps *maps, struct attn_arena *arena,
                              struct rows *queries) {
  attn_status status = ATTN_OK;
  for (size_t s = 0; s < maps->query_steps && status == ATTN_OK; s++) {
    const struct attn_map_step *step = &maps->query[s];
    if (step->op == MAP_TIMES)
      multiply_by(step, queries);
    else
      status = project(step, arena, queries);
  }
  return status;
}

static double norm_of(const double *row, size_t dim) {
  double sum;
  attn_kernels()->row_dot_f64(&sum, row, row, 1, dim);
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
  bool all, mapped_by_tensors;
  double coefficient;
};

static void map_query(const struct mapping *mapping, size_t q, double *row) {
  const struct attn_kernels *kernels = attn_kernels();
  const struct attn_query_map *map = mapping->map;
  struct attn_queries *mapped = mapping->mapped;
  const size_t dim = mapped->dim;
  if (!mapping->mapped_by_tensors)
    kernels->row_widen(row, mapping->queries + mapped->which[q] * dim, dim);
  mapped->norms[q] = norm_of(row, dim);
  if (!map->f32) return;
  const double factor = factor_of(map, mapping->coefficient, mapped->norms[q]);
  mapped->scaled_norm[q] = mapped->norms[q] * fabs(factor);
  kernels->row_narrow(mapped->f32 + q * dim, row, dim, factor);
}

static void map_slice(void *argument, size_t slice) {
  const struct mapping *mapping = argument;
  const struct attn_queries *mapped = mapping->mapped;
  const size_t end = attn_cut(mapped->count, mapping->slices, slice + 1);
  for (size_t q = attn_cut(mapped->count, mapping->slices, slice); q < end; q++)
    map_query(mapping, q,
              mapping->all ? mapped->f64 + q * mapped->dim
                           : mapping->given + slice * mapping->query_dim);
}

attn_status attn_queries_map(struct attn_queries *mapped, struct attn_arena *arena,
                             const struct attn_query_map *map, const float *queries,
                             const size_t *which, size_t count) {
  const struct attn_maps *maps = &map->score->maps;
  const size_t query_dim = map->query_dim;
  const size_t dim = attn_score_mapped_dim(map->score, map->key_dim);
  const size_t numbers = attn_size_times(count, dim);
  *mapped = (struct attn_queries){.count = count, .dim = dim, .which = which};
  struct mapping mapping = {.mapped = mapped,
                            .map = map,
                            .queries = queries,
                            .query_dim = query_dim,
                            .slices = numbers >= MAP_LEAST ? ATTN_SLICES : 1,
                            .all = map->f64 || maps->query_steps > 0,
                            .mapped_by_tensors = maps->query_steps > 0,
                            .coefficient = coefficient_of(map)};
  const size_t rows = mapping.all ? count : mapping.slices;
  mapping.given = attn_arena_alloc(arena, attn_size_times(rows, query_dim), sizeof *mapping.given);
  mapped->norms = attn_arena_alloc(arena, count, sizeof *mapped->norms);
  if (!mapping.given || !mapped->norms) return ATTN_NO_MEMORY;
  if (map->f32) {
    mapped->f32 = attn_arena_alloc(arena, numbers, sizeof *mapped->f32);
    mapped->scaled_norm = attn_arena_alloc(arena, count, sizeof *mapped->scaled_norm);
    if (!mapped->f32 || !mapped->scaled_norm) return ATTN_NO_MEMORY;
  }
  mapped->f64 = mapping.all ? mapping.given : NULL;
  if (maps->query_steps > 0) {
    struct rows given = {mapping.given, count, query_dim};
    for (size_t q = 0; q < count; q++)
      attn_kernels()->row_widen(given.numbers + q * query_dim, queries + which[q] * query_dim,
                                query_dim);
    const attn_status status = apply_maps(maps, arena, &given);
    if (status != ATTN_OK) return status;
    mapped->f64 = given.numbers;
  }
  attn_pool_run(arena->pool, mapping.slices, map_slice, &mapping);
  return ATTN_OK;
}

void attn_queries_move(struct attn_queries *mapped, size_t from, size_t to) {
  const size_t dim = mapped->dim;
  if (from == to) return;
  mapped->norms[to] = mapped->norms[from];
  if (mapped->f64)
    memcpy(mapped->f64 + to * dim, mapped->f64 + from * dim, dim * sizeof *mapped->f64);
  if (!mapped->f32) return;
  memcpy(mapped->f32 + to * dim, mapped->f32 + from * dim, dim * sizeof *mapped->f32);
  mapped->scaled_norm[to] = mapped->scaled_norm[from];
}
