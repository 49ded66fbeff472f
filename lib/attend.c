/* attn_attend(): checks, what a combination needs, blocks of queries.
 *
 * A block's queries are mapped once for the float32 arithmetic; those that it
 * can serve (lib/arithmetic.c) go through one pass, the others, and those that
 * turn out to be beyond it, through a second one in float64. */
#include <math.h>
#include <stdlib.h>

#include "arithmetic.h"
#include "pass.h"
#include "result.h"

/* Queries under way together: their states (and, for sparse rules on equal
 * scores, their candidates) are held to about this many float64 per worker. */
enum { STATE_NUMBERS = 1 << 22, BLOCK_QUERIES = 256 };

static struct attn_combination combination_of(const attn_request *request, size_t rows) {
  const attn_normalization *norm = request->normalization;
  const enum norm_rule rule = norm->kind->rule;
  struct attn_combination combination = {.beta = norm->inverse_temperature};
  combination.log = rule == RULE_SUM && request->score->kind->log_score;
  combination.soft = rule == RULE_SOFTMAX || combination.log;
  combination.select =
      rule == RULE_HARDMAX || norm->kind->window > 0 || (norm->top_k > 0 && norm->top_k < rows);
  return combination;
}

/* The queries of a block, by the arithmetic that is to serve them. */
struct sorted {
  size_t fast[BLOCK_QUERIES], exact[BLOCK_QUERIES];
  size_t exact_count;
  struct attn_queries mapped;                /* the fast ones */
  struct attn_margin margins[BLOCK_QUERIES]; /* theirs */
};

static attn_status sort_queries(const struct attn_pass_plan *plan,
                                const struct attn_arithmetic *arithmetic, size_t first,
                                size_t count, struct sorted *sorted) {
  for (size_t q = 0; q < count; q++)
    sorted->fast[q] = sorted->exact[q] = first + q;
  sorted->exact_count = count;
  sorted->mapped = (struct attn_queries){0};
  if (!arithmetic->possible) return ATTN_OK;

  struct attn_queries *mapped = &sorted->mapped;
  const struct attn_query_map map = attn_pass_query_map(plan, true);
  const attn_status status =
      attn_queries_map(mapped, plan->room, &map, plan->request->queries, sorted->fast, count);
  if (status != ATTN_OK) return status;
  mapped->count = 0;
  sorted->exact_count = 0;
  for (size_t q = 0; q < count; q++)
    if (attn_arithmetic_fits(arithmetic, mapped->norms[q], mapped->reach[q],
                             &sorted->margins[mapped->count])) {
      attn_queries_move(mapped, q, mapped->count);
      sorted->fast[mapped->count++] = first + q;
    } else {
      sorted->exact[sorted->exact_count++] = first + q;
    }
  return ATTN_OK;
}

static attn_status attend_exactly(struct attn_pass_plan *plan, const size_t *which, size_t count) {
  struct attn_queries mapped;
  const struct attn_query_map map = attn_pass_query_map(plan, false);
  const attn_status status =
      attn_queries_map(&mapped, plan->room, &map, plan->request->queries, which, count);
  plan->fast = false;
  return status == ATTN_OK ? attn_pass_run(plan, &mapped, INFINITY, NULL, NULL) : status;
}

/* For the mapped queries and their states. */
static size_t expected_room(const struct attn_pass_plan *plan, size_t count) {
  const size_t states = plan->combination.select ? 0 : plan->parts * plan->memory->value_dim;
  return count * (states * sizeof(double) + plan->memory->key_dim * sizeof(float) + 64);
}

static attn_status attend_block(struct attn_pass_plan *plan,
                                const struct attn_arithmetic *arithmetic, size_t first,
                                size_t count) {
  struct sorted sorted;
  struct attn_room room = attn_room_enter(plan->pool, expected_room(plan, count));
  plan->room = &room;
  attn_status status = sort_queries(plan, arithmetic, first, count, &sorted);
  if (status == ATTN_OK && sorted.mapped.count > 0) {
    plan->fast = true;
    plan->margins = sorted.margins;
    status = attn_pass_run(plan, &sorted.mapped, attn_arithmetic_limit(arithmetic), sorted.exact,
                           &sorted.exact_count);
  }
  if (status == ATTN_OK && sorted.exact_count > 0)
    status = attend_exactly(plan, sorted.exact, sorted.exact_count);
  attn_room_leave(&room);
  return status;
}

static size_t block_queries(const struct attn_pass_plan *plan) {
  const attn_request *request = plan->request;
  const size_t rows = plan->memory->rows;
  size_t state = plan->memory->value_dim;
  if (plan->combination.select) {
    const attn_normalization *norm = request->normalization;
    state = norm->kind->rule == RULE_HARDMAX ? 1 : norm->top_k > 0 ? norm->top_k : rows;
  }
  if (plan->result->top > state) state = plan->result->top;
  if (state > rows && rows > plan->memory->value_dim) state = rows;
  const size_t fitting = STATE_NUMBERS / state;
  return fitting < 1 ? 1 : fitting < BLOCK_QUERIES ? fitting : BLOCK_QUERIES;
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
                                .parts = attn_pass_parts(snapshot, pool),
                                .combination = combination_of(request, snapshot->rows)};
  const struct attn_arithmetic arithmetic =
      attn_arithmetic_of(snapshot, request->score, &plan.combination);
  struct attn_tile *tiles = attn_snapshot_tiles(snapshot, plan.parts, &plan.tile_count);
  if (!tiles) return ATTN_NO_MEMORY;
  plan.tiles = tiles;
  const size_t step = block_queries(&plan);
  for (size_t q = 0; q < request->query_count && status == ATTN_OK; q += step) {
    const size_t left = request->query_count - q;
    status = attend_block(&plan, &arithmetic, q, left < step ? left : step);
  }
  free(tiles);
  return status;
}
