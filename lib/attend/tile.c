/* Scores of a query block against a tile of keys.
 *
 * The bases (product, distance, ...) are computed here, by the panel kernels;
 * the score's function of the base comes from its table entry. Distances are
 * taken from the differences, never as |q|^2 + |k|^2 - 2 q.k: that is one GEMM,
 * but for near neighbours with a large common offset nothing of it is left
 * after the cancellation, and finding out where costs what it saved. */
#include "attend/tile.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

attn_status attn_scorer_create(struct attn_scorer *scorer, const attn_snapshot *memory,
                               const struct attn_query_map *map) {
  const attn_score *score = map->score;
  *scorer = (struct attn_scorer){.score = score,
                                 .kernels = attn_kernels(),
                                 .key_dim = memory->key_dim,
                                 .tile_rows = memory->tile_rows,
                                 .f64 = !map->f32,
                                 .log = map->log,
                                 .form = map->log ? score->kind->f32_log : score->kind->f32};
  attn_score_numbers(score, memory->key_dim, scorer->numbers);
  if (map->f32)
    scorer->coefficient = (float)(score->kind->coefficient(scorer->numbers, map->log) * map->beta);
  if (!score->maps.has_key) return ATTN_OK;
  scorer->mapped_dim = attn_score_mapped_dim(score, memory->key_dim);
  if (!scorer->f64) return ATTN_OK;
  const struct attn_map_step *step = &score->maps.key;
  const size_t count = step->rows * step->cols;
  scorer->wide_key_map = malloc(attn_size_times(count, sizeof *scorer->wide_key_map));
  if (!scorer->wide_key_map) return ATTN_NO_MEMORY;
  scorer->kernels->row_widen(scorer->wide_key_map, step->tensor, count);
  return ATTN_OK;
}

void attn_scorer_clear(struct attn_scorer *scorer) {
  free(scorer->wide_key_map);
  scorer->wide_key_map = NULL;
}

/* ---- Scratch ---- */

attn_status attn_scratch_make(struct attn_scratch *scratch, struct attn_arena *arena,
                              const struct attn_scorer *scorer, size_t rows) {
  const size_t mapped = attn_size_times(rows, scorer->mapped_dim);
  *scratch = (struct attn_scratch){0};
  bool made;
  if (scorer->f64) {
    scratch->keys_f64 =
        attn_arena_alloc(arena, attn_size_times(rows, scorer->key_dim), sizeof(double));
    made = scratch->keys_f64 != NULL;
    if (mapped > 0) {
      scratch->wide_mapped_keys = attn_arena_alloc(arena, mapped, sizeof(double));
      made = made && scratch->wide_mapped_keys;
    }
  } else {
    scratch->key_factors = attn_arena_alloc(arena, rows, sizeof(float));
    made = scratch->key_factors != NULL;
    if (mapped > 0) {
      scratch->mapped_keys = attn_arena_alloc(arena, mapped, sizeof(float));
      made = made && scratch->mapped_keys;
    }
  }
  return made ? ATTN_OK : ATTN_NO_MEMORY;
}

/* A key as the score's map leaves it, in float64. */
static void map_key(const struct attn_scorer *scorer, const double *key, double *mapped) {
  const struct attn_map_step *step = &scorer->score->maps.key;
  const double *tensor = scorer->wide_key_map;
  if (step->op == MAP_FROM_RIGHT) {
    scorer->kernels->row_dot_f64(mapped, key, tensor, step->rows, step->cols);
  } else if (step->op == MAP_FROM_LEFT) {
    memset(mapped, 0, step->cols * sizeof *mapped);
    for (size_t i = 0; i < step->rows; i++)
      scorer->kernels->row_add_f64(mapped, tensor + i * step->cols, step->cols, key[i]);
  } else {
    for (size_t i = 0; i < step->rows; i++)
      mapped[i] = tensor[i] * key[i];
  }
}

static void map_keys(const struct attn_scorer *scorer, const struct attn_scratch *scratch,
                     size_t rows) {
  for (size_t r = 0; scorer->score->maps.has_key && r < rows; r++)
    map_key(scorer, scratch->keys_f64 + r * scorer->key_dim,
            scratch->wide_mapped_keys + r * scorer->mapped_dim);
}

/* Queries against the keys of a tile. The rows of additive's matrix are scored likewise. */
static struct attn_panels panels_of(const struct attn_scorer *scorer, const struct attn_tile *tile,
                                    const struct attn_scratch *scratch, const float *queries,
                                    size_t count) {
  return (struct attn_panels){.queries = queries,
                              .count = count,
                              .dim = scorer->key_dim,
                              .keys = tile->keys,
                              .prefetch = scratch->prefetch,
                              .panel_count = attn_panel_rows(tile->rows) / ATTN_PANEL};
}

/* Products, with the scales of keys that have them. */
static void products(const struct attn_scorer *scorer, const struct attn_panels *work, size_t rows,
                     struct attn_score_view to) {
  scorer->kernels->panels_dot(work, to.data, to.ld);
  for (size_t q = 0; work->keys.scales && q < work->count; q++)
    scorer->kernels->row_times(to.data + q * to.ld, work->keys.scales, rows);
}

void attn_scorer_enter_tile(const struct attn_scorer *scorer, const struct attn_tile *tile,
                            struct attn_scratch *scratch) {
  const struct attn_map_step *step = &scorer->score->maps.key;
  if (scorer->f64) {
    scorer->kernels->widen_keys(scratch->keys_f64, &tile->keys, tile->rows, scorer->key_dim);
    map_keys(scorer, scratch, tile->rows);
  } else if (scorer->score->maps.has_key) {
    const struct attn_panels work = panels_of(scorer, tile, scratch, step->tensor, step->rows);
    products(scorer, &work, tile->rows,
             (struct attn_score_view){scratch->mapped_keys, attn_panel_rows(tile->rows)});
  } else if (scorer->score->kind->base == BASE_COSINE) {
    for (size_t r = 0; r < tile->rows; r++)
      scratch->key_factors[r] = tile->norms[r] > 0 ? (float)(1.0 / tile->norms[r]) : 0.0f;
  }
}

/* ---- float32 ---- */

static void additive_f32(const struct attn_scorer *scorer, const struct attn_scratch *scratch,
                         const float *query, size_t rows, float *scores) {
  const float *v = scorer->score->maps.unit_weights;
  for (size_t h = 0; h < scorer->mapped_dim; h++)
    scorer->kernels->row_additive(scores, scratch->mapped_keys + h * attn_panel_rows(rows), rows,
                                  query[h], v[h] * scorer->coefficient, h == 0);
}

void attn_scorer_f32(const struct attn_scorer *scorer, const struct attn_tile *tile,
                     const struct attn_scratch *scratch, const struct attn_queries *queries,
                     size_t first, size_t count, struct attn_score_view to) {
  const struct attn_kernels *kernels = scorer->kernels;
  const enum score_base base = scorer->score->kind->base;
  const size_t rows = tile->rows;
  const float *from = queries->f32 + first * queries->dim;
  const struct attn_panels work = panels_of(scorer, tile, scratch, from, count);
  if (base == BASE_DOT || base == BASE_COSINE)
    products(scorer, &work, rows, to);
  else if (base == BASE_DISTANCE)
    kernels->panels_distance2(&work, to.data, to.ld);
  for (size_t q = 0; q < count; q++) {
    float *row = to.data + q * to.ld;
    if (base == BASE_COSINE)
      kernels->row_times(row, scratch->key_factors, rows);
    else if (base == BASE_ADDITIVE)
      additive_f32(scorer, scratch, from + q * queries->dim, rows, row);
    else if (scorer->form == SCORE_F32_SQUARE)
      kernels->row_scale(row, rows, scorer->coefficient);
    else if (scorer->form == SCORE_F32_DISTANCE)
      kernels->row_sqrt(row, rows, scorer->coefficient);
  }
}

/* ---- float64 ---- */

static double identity_f64(const double *query, const double *key, size_t dim) {
  for (size_t i = 0; i < dim; i++)
    if (query[i] != key[i]) return 0;
  return 1;
}

static double additive_f64(const double *query, const double *key, const float *v, size_t dim) {
  double sum = 0;
  for (size_t i = 0; i < dim; i++)
    sum += (double)v[i] * tanh(query[i] + key[i]);
  return sum;
}

static double norm_of(const struct attn_scorer *scorer, const double *row, size_t dim) {
  double sum;
  scorer->kernels->row_dot_f64(&sum, row, row, 1, dim);
  return sqrt(sum);
}

/* The bases of one query with some keys. Products don't go through OpenBLAS
 * here: what it computes for a key depends on the key's place in the matrix,
 * and equal keys have to tie. */
static void bases_f64(const struct attn_scorer *scorer, const double *key_norms,
                      const struct attn_scratch *scratch, size_t rows, const double *query,
                      double norm, double *bases) {
  const struct attn_maps *maps = &scorer->score->maps;
  const double *keys = maps->has_key ? scratch->wide_mapped_keys : scratch->keys_f64;
  const size_t dim = maps->has_key ? scorer->mapped_dim : scorer->key_dim;
  const enum score_base base = scorer->score->kind->base;
  if (base == BASE_DISTANCE)
    scorer->kernels->row_distance_f64(bases, query, keys, rows, dim);
  else if (base == BASE_DOT || base == BASE_COSINE)
    scorer->kernels->row_dot_f64(bases, query, keys, rows, dim);
  for (size_t r = 0; r < rows; r++) {
    const double *key = keys + r * dim;
    if (base == BASE_COSINE) {
      const double norms = norm * (maps->has_key ? norm_of(scorer, key, dim) : key_norms[r]);
      bases[r] = norms > 0 ? bases[r] / norms : 0;
    } else if (base == BASE_ADDITIVE) {
      bases[r] = additive_f64(query, key, maps->unit_weights, dim);
    } else if (base == BASE_IDENTITY) {
      bases[r] = identity_f64(query, key, dim);
    } else if (base == BASE_ONE) {
      bases[r] = 1;
    }
  }
}

void attn_scorer_f64(const struct attn_scorer *scorer, const struct attn_tile *tile,
                     const struct attn_scratch *scratch, const struct attn_queries *queries,
                     size_t first, size_t count, double *scores) {
  const struct score_kind *kind = scorer->score->kind;
  double (*const function)(double, const double *) = scorer->log ? kind->log_score : kind->score;
  for (size_t q = 0; q < count; q++) {
    double *row = scores + q * tile->rows;
    bases_f64(scorer, tile->norms, scratch, tile->rows, queries->f64 + (first + q) * queries->dim,
              queries->norms[first + q], row);
    for (size_t r = 0; r < tile->rows; r++)
      row[r] = function(row[r], scorer->numbers);
  }
}

double attn_scorer_f64_pair(const struct attn_scorer *scorer, const struct attn_tile *tile,
                            size_t row, struct attn_scratch *scratch,
                            const struct attn_queries *queries, size_t query) {
  const struct score_kind *kind = scorer->score->kind;
  double base;
  attn_tile_key(tile, row, scorer->key_dim, scratch->keys_f64);
  map_keys(scorer, scratch, 1);
  bases_f64(scorer, tile->norms + row, scratch, 1, queries->f64 + query * queries->dim,
            queries->norms[query], &base);
  return (scorer->log ? kind->log_score : kind->score)(base, scorer->numbers);
}
