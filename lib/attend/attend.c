/* attn_attend(): checks, the traits of a request, its queries pass by pass.
 *
 * The queries of a pass are mapped once for the float32 arithmetic; those that it
 * can serve (lib/attend/arithmetic.c) go through the float32 pass, the others, and those
 * that turn out to be beyond it, through a second one in float64. */
#include <math.h>
#include <stdlib.h>

#include "attend/arithmetic.h"
#include "attend/pass.h"
#include "attend/result.h"

/* Queries of a pass: as many as have states (and, for sparse rules on equal scores,
 * candidates) of about STATE_NUMBERS float64 per worker, PASS_QUERIES at most. */
enum { STATE_NUMBERS = 1 << 22, PASS_QUERIES = 256 };

static struct attn_traits traits_of(const attn_request *request, size_t rows) {
  const attn_normalization *norm = request->normalization;
  const enum norm_rule rule = norm->kind->rule;
  struct attn_traits traits = {.beta = norm->inverse_temperature};
  traits.log = rule == RULE_SUM && request->score->kind->log_score;
  traits.soft = rule == RULE_SOFTMAX || traits.log;
  traits.select =
      rule == RULE_HARDMAX || norm->kind->window > 0 || (norm->top_k > 0 && norm->top_k < rows);
  return traits;
}

/* The queries of a pass, by the arithmetic that is to serve them. */
struct sorted {
  size_t f32[PASS_QUERIES], f64[PASS_QUERIES];
  size_t f64_count;
  struct attn_queries mapped;               /* those of float32 */
  struct attn_margin margins[PASS_QUERIES]; /* theirs */
};

static attn_status sort_queries(const struct attn_pass_plan *plan,
                                const struct attn_arithmetic *arithmetic, size_t first,
                                size_t count, struct sorted *sorted) {
  for (size_t q = 0; q < count; q++)
    sorted->f32[q] = sorted->f64[q] = first + q;
  sorted->f64_count = count;
  sorted->mapped = (struct attn_queries){0};
  if (!arithmetic->possible) return ATTN_OK;

  struct attn_queries *mapped = &sorted->mapped;
  const struct attn_query_map map = attn_pass_query_map(plan, true);
  const attn_status status =
      attn_queries_map(mapped, plan->arena, &map, plan->request->queries, sorted->f32, count);
  if (status != ATTN_OK) return status;
  mapped->count = 0;
  sorted->f64_count = 0;
  for (size_t q = 0; q < count; q++)
    if (attn_arithmetic_fits(arithmetic, mapped->norms[q], mapped->scaled_norm[q],
                             &sorted->margins[mapped->count])) {
      attn_queries_move(mapped, q, mapped->count);
      sorted->f32[mapped->count++] = first + q;
    } else {
      sorted->f64[sorted->f64_count++] = first + q;
    }
  return ATTN_OK;
}

static attn_status attend_f64(struct attn_pass_plan *plan, const size_t *which, size_t count) {
  struct attn_queries mapped;
  const struct attn_query_map map = attn_pass_query_map(plan, false);
  const attn_status status =
      attn_queries_map(&mapped, plan->arena, &map, plan->request->queries, which, count);
  plan->f32 = false;
  return status == ATTN_OK ? attn_pass_run(plan, &mapped, INFINITY, NULL, NULL) : status;
}

/* For the mapped queries and their states. */
static size_t expected_bytes(const struct attn_pass_plan *plan, size_t count) {
  const size_t states = plan->traits.select ? 0 : plan->splits * plan->memory->value_dim;
  return count * (states * sizeof(double) + plan->memory->key_dim * sizeof(float) + 64);
}

static attn_status attend_pass(struct attn_pass_plan *plan,
                               const struct attn_arithmetic *arithmetic, size_t first,
                               size_t count) {
  struct sorted sorted;
  struct attn_arena arena = attn_arena_begin(plan->pool, expected_bytes(plan, count));
  plan->arena = &arena;
  attn_status status = sort_queries(plan, arithmetic, first, count, &sorted);
  if (status == ATTN_OK && sorted.mapped.count > 0) {
    plan->f32 = true;
    plan->margins = sorted.margins;
    status = attn_pass_run(plan, &sorted.mapped, attn_arithmetic_limit(arithmetic), sorted.f64,
                           &sorted.f64_count);
  }
  if (status == ATTN_OK && sorted.f64_count > 0)
    status = attend_f64(plan, sorted.f64, sorted.f64_count);
  attn_arena_end(&arena);
  return status;
}

static size_t pass_queries(const struct attn_pass_plan *plan) {
  const attn_request *request = plan->request;
  const size_t rows = plan->memory->rows;
  size_t state = plan->memory->value_dim;
  if (plan->traits.select) {
    const attn_normalization *norm = request->normalization;
    state = norm->kind->rule == RULE_HARDMAX ? 1 : norm->top_k > 0 ? norm->top_k : rows;
  }
  if (plan->result->top > state) state = plan->result->top;
  if (state > rows && rows > plan->memory->value_dim) state = rows;
  const size_t fitting = STATE_NUMBERS / state;
  return fitting < 1 ? 1 : fitting < PASS_QUERIES ? fitting : PASS_QUERIES;
}

static attn_status check_queries(const attn_request *request, attn_result *result) {
  const size_t dim = request->query_dim;
  if (attn_kernels()->all_finite(request->queries, request->query_count * dim)) return ATTN_OK;
  size_t q = 0;
  while (q + 1 < request->query_count &&
         attn_kernels()->all_finite(request->queries + q * dim, dim))
    q++;
  result->fault_query = q;
  return ATTN_NOT_FINITE;
}

static attn_status check(const attn_snapshot *memory, const attn_request *request,
                         attn_result *result) {
  if (!memory || !request || !result || !request->queries || !request->score ||
      !request->normalization || request->query_count < 1 || !attn_result_has_arrays(result))
    return ATTN_BAD_ARGUMENT;
  if (request->weights_mode == ATTN_WEIGHTS_TOP && request->top < 1) return ATTN_BAD_ARGUMENT;
  const size_t dim = attn_score_query_dim(request->score, memory->key_dim);
  if (dim == 0 || dim != request->query_dim) return ATTN_BAD_SHAPE;
  if (memory->rows == 0) return ATTN_EMPTY_MEMORY;
  const attn_result asked = attn_result_for(memory, request);
  if (!attn_result_has_room(result, &asked)) return ATTN_BAD_SHAPE;
  result->fault_query = ATTN_NO_QUERY;
  return check_queries(request, result);
}

attn_status attn_attend(const attn_snapshot *snapshot, const attn_request *request,
                        attn_result *result, const attn_pool *pool) {
  attn_status status = check(snapshot, request, result);
  if (status != ATTN_OK) return status;
  struct attn_pass_plan plan = {.memory = snapshot,
                                .request = request,
                                .result = result,
                                .pool = pool,
                                .splits = attn_pass_splits(snapshot, pool),
                                .traits = traits_of(request, snapshot->rows)};
  const struct attn_arithmetic arithmetic =
      attn_arithmetic_of(snapshot, request->score, &plan.traits);
  struct attn_tile *tiles = attn_snapshot_tiles(snapshot, plan.splits, &plan.tile_count);
  if (!tiles) return ATTN_NO_MEMORY;
  plan.tiles = tiles;
  const size_t step = pass_queries(&plan);
  for (size_t q = 0; q < request->query_count && status == ATTN_OK; q += step) {
    const size_t left = request->query_count - q;
    status = attend_pass(&plan, &arithmetic, q, left < step ? left : step);
  }
  free(tiles);
  return status;
}
