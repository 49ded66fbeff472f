/* One pass: scores tile by tile, folded or selected from, merged, answered (answer.c).
 *
 * The rows are cut into parts; a worker begins with one of them. Queries go through a
 * part in steps, a run of tiles at a time, and workers take turns at that (turns.h): a
 * state belongs to whoever has the turn, and nothing else that is written is shared but
 * `status` and whose turn it is. When all are done the parts are merged in order of rows:
 * the answer may depend on how many workers there are (by less than a unit in the last
 * place, mostly), never on which was faster or on what else was asked in the same batch.
 *
 * Where there is one part, whoever takes a step through its last tiles finishes its
 * queries too.
 *
 * Rejected: to begin a single query at the end where the pass before ended, whose last rows a
 * cache still has. That was 4 % faster for 5 and for 100 MB beside a cache of 32 MB, neither
 * faster nor slower for 15, 60 and 250 MB, and took an order of its own for what is added up.
 * Weighing the values of several tiles a few columns at a time, so that their sums stay in
 * registers, gained 1.5 % for 256 queries and 768 dimensions. Cutting the rows finer
 * than workers costs a state of queries x value_dim for each part. Fetching what no cache can keep
 * past the caches (prefetchnta), that they keep the rest, made a plain read 3 to 15 % longer. */
#include "pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "pool.h"
#include "turns.h"

/* Queries that meet tiles together: enough to fill the registers several times,
 * few enough for them, their scores and their products to stay in the cache beside
 * what they meet. 64 and 128 were measured to be no faster. */
enum { STEP_QUERIES = ATTN_FOLD_QUERIES, STEP_FLOATS = 1 << 16 };

/* Where workers share a part from the start there are so many steps for each, unless
 * those would have fewer queries than that: so that all end together. */
enum { STEPS_EACH = 2, STEP_LEAST = 16 };

/* Tiles of wide rows are met in runs, of so many rows if they fit so many tiles. */
enum { RUN_ROWS = 512, RUN_TILES = 8 };

/* Scores of neighbouring queries lie so many further apart than they have to, or all would
 * want the same few places of the first-level cache. */
enum { STRIDE_ODD = 16 };

/* What fits the second-level cache is there since it was last asked for. */
enum { SMALL_MEMORY = 1 << 20 };

/* Outputs of so many numbers are finished by several workers. */
enum { FINISH_LEAST = 1 << 15 };

/* Below this many multiplications a task is not worth handing over. */
enum { TASK_LEAST = 1 << 18 };

struct pass {
  const struct attn_pass_plan *plan;
  struct attn_scorer scorer;
  struct attn_scorer judge; /* float64, for candidates that float32 has found */
  const struct attn_queries *queries;
  struct attn_fold_plan fold_plan;
  size_t count, tasks, step, run;    /* step: queries; run: tiles */
  struct attn_turns *turns;          /* parts */
  double limit;                      /* of exponents, for float32 */
  struct attn_fold *folds;           /* parts */
  struct attn_selection *selections; /* parts x count */
  bool *left;                        /* count: to be redone in float64 */
  atomic_int status;                 /* the first failure of any task */
};

static void fail(struct pass *pass, attn_status status) {
  int expected = ATTN_OK;
  atomic_compare_exchange_strong(&pass->status, &expected, (int)status);
}

/* The first failure also says which query it was, if it is one of a query. */
static void fail_query(struct pass *pass, attn_status status, size_t q) {
  int expected = ATTN_OK;
  if (atomic_compare_exchange_strong(&pass->status, &expected, (int)status) &&
      status == ATTN_NOT_REPRESENTABLE)
    pass->plan->result->fault_query = pass->queries->which[q];
}

static attn_status status_of(struct pass *pass) {
  return (attn_status)atomic_load_explicit(&pass->status, memory_order_relaxed);
}

/* ---- Cutting ---- */

static size_t smaller(size_t a, size_t b) {
  return a < b ? a : b;
}
static size_t larger(size_t a, size_t b) {
  return a > b ? a : b;
}

static size_t divided_up(size_t a, size_t b) {
  return (a + b - 1) / b;
}

static bool is_small(const attn_snapshot *memory) {
  const double numbers = (double)memory->rows * (double)(memory->key_dim + memory->value_dim);
  return numbers * (double)attn_dtype_bytes(memory->dtype) <= SMALL_MEMORY;
}

static size_t workers_of(const attn_pool *pool) {
  return pool ? larger(pool->workers, 1) : 1;
}

/* Tasks that a query is worth. */
static double worth(const attn_snapshot *memory) {
  return (double)memory->rows * (double)(memory->key_dim + memory->value_dim) / TASK_LEAST;
}

/* How the rows are cut depends on the memory and the workers, never on how many
 * queries there are: rounding differs between cuts, and a query is to get the
 * same answer alone and in a batch. The queries are cut as it pleases. */
size_t attn_pass_parts(const attn_snapshot *memory, const attn_pool *pool) {
  const size_t workers = workers_of(pool);
  const double parts = worth(memory);
  return parts < (double)workers ? larger((size_t)parts, 1) : workers;
}

static void choose_cuts(struct pass *pass) {
  const attn_snapshot *memory = pass->plan->memory;
  const size_t workers = workers_of(pass->plan->pool);
  const size_t parts = pass->plan->parts, count = pass->count;
  const double tasks = worth(memory) * (double)count;
  const size_t wanted = tasks < (double)workers ? larger((size_t)tasks, 1) : workers;
  const size_t each = smaller(divided_up(wanted, parts), count); /* workers of a part */
  /* entering a tile may be work, which is not to be done for each step */
  const bool enters = !pass->plan->fast || pass->scorer.score->maps.has_key;
  pass->run = !enters ? smaller(larger(RUN_ROWS / memory->tile_rows, 1), RUN_TILES) : 1;
  const size_t wide = larger(pass->run * memory->tile_rows, memory->value_dim);
  pass->tasks = larger(wanted, parts);
  pass->step = smaller(smaller(STEP_QUERIES, count), larger(STEP_FLOATS / wide, 1));
  if (each > 1) {
    const size_t even = larger(divided_up(count, STEPS_EACH * each), STEP_LEAST);
    pass->step = smaller(pass->step, smaller(even, divided_up(count, each)));
  }
}

/* The first tile of a part, or of the next one that has any. */
static size_t part_begins(const struct attn_pass_plan *plan, size_t part) {
  size_t low = 0, high = plan->tile_count;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (plan->tiles[middle].part < part)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* ---- Tasks ---- */

/* What a task computes with, in a room of its own. */
struct desk {
  struct attn_room room;
  struct attn_scratch scratch;
  struct attn_sheet sheet; /* step x run */
  struct attn_share share;
  double *wide_scores, *wide_values;
  const struct attn_tile *entered; /* the last one that was met */
};

static bool share_make(struct attn_share *share, struct attn_room *room, size_t count, size_t dim) {
  *share = (struct attn_share){
      .max = attn_room_take(room, count, sizeof *share->max),
      .sum = attn_room_take(room, count, sizeof *share->sum),
      .product = attn_room_take(room, attn_size_times(count, dim), sizeof *share->product)};
  return share->max && share->sum && share->product;
}

static attn_status desk_make(struct desk *desk, const struct pass *pass) {
  const attn_snapshot *memory = pass->plan->memory;
  const size_t stride = pass->run * memory->tile_rows + STRIDE_ODD, scores = pass->step * stride;
  const size_t products = attn_size_times(pass->step, memory->value_dim);
  const size_t values = memory->tile_rows * memory->value_dim;
  const bool fast = pass->plan->fast;
  *desk = (struct desk){
      .room = attn_room_enter(pass->plan->pool, fast ? (scores + products) * sizeof(float)
                                                     : (scores + values) * sizeof(double))};
  const attn_status status =
      attn_scratch_make(&desk->scratch, &desk->room, &pass->scorer, memory->tile_rows);
  if (status != ATTN_OK) return status;
  if (fast) {
    desk->sheet = (struct attn_sheet){attn_room_take(&desk->room, scores, sizeof(float)), stride};
    const bool made = share_make(&desk->share, &desk->room, pass->step, memory->value_dim);
    return made && desk->sheet.scores ? ATTN_OK : ATTN_NO_MEMORY;
  }
  desk->wide_scores = attn_room_take(&desk->room, scores, sizeof *desk->wide_scores);
  desk->wide_values = attn_room_take(&desk->room, values, sizeof *desk->wide_values);
  return desk->wide_scores && desk->wide_values ? ATTN_OK : ATTN_NO_MEMORY;
}

static attn_status select_from(struct pass *pass, const struct desk *desk, size_t part,
                               const struct attn_scored_run *scored) {
  const size_t rows = scored->rows, first = scored->tiles->first;
  attn_status status = ATTN_OK;
  for (size_t q = 0; q < scored->count && status == ATTN_OK; q++) {
    struct attn_selection *selection = &pass->selections[part * pass->count + scored->first + q];
    status = pass->plan->fast
                 ? attn_selection_offer_floats(selection, desk->sheet.scores + q * scored->stride,
                                               rows, first, pass->scorer.kernels)
                 : attn_selection_offer(selection, desk->wide_scores + q * rows, rows, first, 1);
  }
  return status;
}

static bool is_cancelled(const attn_request *request) {
  return request->cancelled && request->cancelled(request->cancel_context);
}

/* A step of queries meets a run of tiles. */
struct meeting {
  size_t part, first, count;
  size_t tile, end; /* of the run */
  size_t following; /* the tile that is met next, probably; the run's last one: nothing new is */
};

/* What is wanted once the scores with tile t are computed. `fresh`: this worker meets the
 * tile for the first time, or others in between. */
static struct attn_ahead after_scores(const struct attn_pass_plan *plan,
                                      const struct attn_scored_run *scored, size_t t, bool fresh) {
  if (!scored->fetching) return (struct attn_ahead){0};
  if (t + 1 < scored->index + scored->tile_count)
    return attn_tile_keys_ahead(&plan->tiles[t + 1], plan->memory->key_dim);
  if (plan->combination.select) return scored->ahead;
  return fresh ? attn_tile_values_ahead(scored->tiles, plan->memory->value_dim)
               : (struct attn_ahead){0};
}

static attn_status score_run(struct pass *pass, struct desk *desk, const struct meeting *now,
                             struct attn_scored_run *scored) {
  const struct attn_pass_plan *plan = pass->plan;
  for (size_t t = now->tile; t < now->end; scored->rows += plan->tiles[t++].rows) {
    const struct attn_tile *tile = &plan->tiles[t];
    const bool fresh = desk->entered != tile;
    if (is_cancelled(plan->request)) return ATTN_CANCELLED;
    if (status_of(pass) != ATTN_OK) return status_of(pass);
    desk->scratch.ahead = (struct attn_ahead){0};
    if (fresh) {
      desk->entered = tile;
      attn_scorer_enter_tile(&pass->scorer, tile, &desk->scratch);
      if (!plan->fast && !plan->combination.select)
        pass->scorer.kernels->widen_values(desk->wide_values, &tile->values, tile->rows,
                                           plan->memory->value_dim);
    }
    desk->scratch.ahead = after_scores(plan, scored, t, fresh);
    if (plan->fast)
      attn_scorer_fast(&pass->scorer, tile, &desk->scratch, pass->queries, now->first, now->count,
                       (struct attn_sheet){desk->sheet.scores + scored->rows, desk->sheet.stride});
    else
      attn_scorer_exact(&pass->scorer, tile, &desk->scratch, pass->queries, now->first, now->count,
                        desk->wide_scores);
  }
  return ATTN_OK;
}

static attn_status meet_run(struct pass *pass, struct desk *desk, const struct meeting *now) {
  const struct attn_pass_plan *plan = pass->plan;
  const attn_snapshot *memory = plan->memory;
  struct attn_scored_run scored = {.tiles = &plan->tiles[now->tile],
                                   .tile_count = now->end - now->tile,
                                   .index = now->tile,
                                   .first = now->first,
                                   .count = now->count,
                                   .which = pass->queries->which + now->first,
                                   .stride = desk->sheet.stride,
                                   .fetching = !is_small(memory)};
  if (scored.fetching && now->following + 1 != now->end)
    scored.ahead = attn_tile_keys_ahead(&plan->tiles[now->following], memory->key_dim);

  const attn_status status = score_run(pass, desk, now, &scored);
  if (status != ATTN_OK) return status;
  if (plan->combination.select) return select_from(pass, desk, now->part, &scored);
  if (plan->fast)
    return attn_fold_fast(&pass->folds[now->part], &pass->fold_plan, &scored, desk->sheet.scores,
                          &desk->share);
  return attn_fold_exact(&pass->folds[now->part], &pass->fold_plan, &scored, desk->wide_scores,
                         desk->wide_values);
}

/* ---- Finishing (answer.c) ---- */

static struct attn_answering answering_of(struct pass *pass) {
  return (struct attn_answering){.plan = pass->plan,
                                 .queries = pass->queries,
                                 .fold_plan = &pass->fold_plan,
                                 .judge = &pass->judge};
}

static void select_task(void *argument, size_t q) {
  struct pass *pass = argument;
  const struct attn_answering answering = answering_of(pass);
  struct attn_selection *selection = &pass->selections[q];
  attn_status status = ATTN_OK;
  for (size_t part = 1; part < pass->plan->parts && status == ATTN_OK; part++)
    status = attn_selection_merge(selection, &pass->selections[part * pass->count + q]);
  if (status == ATTN_OK) status = attn_answer_selection(&answering, q, selection);
  if (status != ATTN_OK) fail_query(pass, status, q);
}

static attn_status finish_fold(struct pass *pass, size_t q) {
  const struct attn_answering answering = answering_of(pass);
  struct attn_fold *fold = &pass->folds[0];
  attn_status status = ATTN_OK;
  for (size_t part = 1; part < pass->plan->parts && status == ATTN_OK; part++)
    status = attn_fold_merge(fold, &pass->folds[part], &pass->fold_plan, q);
  if (status != ATTN_OK) return status;
  if (pass->plan->fast && !(fabs(fold->max[q]) <= pass->limit)) {
    pass->left[q] = true;
    return ATTN_OK;
  }
  return attn_answer_fold(&answering, q, fold);
}

static void finish_queries(struct pass *pass, size_t first, size_t end) {
  for (size_t q = first; pass->folds && q < end && status_of(pass) == ATTN_OK; q++) {
    const attn_status status = finish_fold(pass, q);
    if (status != ATTN_OK) fail_query(pass, status, q);
  }
}

static void finish_task(void *argument, size_t index) {
  struct pass *pass = argument;
  finish_queries(pass, attn_cut(pass->count, ATTN_SLICES, index),
                 attn_cut(pass->count, ATTN_SLICES, index + 1));
}

/* ---- Turns ---- */

static attn_status meet_turn(struct pass *pass, struct desk *desk, size_t part,
                             const struct attn_turn *turn) {
  const size_t begin = part_begins(pass->plan, part), last = part_begins(pass->plan, part + 1);
  const size_t from = begin + turn->run * pass->run, end = smaller(from + pass->run, last);
  const size_t first = turn->step * pass->step;
  const bool ends = first + pass->step >= pass->count; /* the next turn is in the next run */
  const struct meeting now = {.part = part,
                              .first = first,
                              .count = smaller(pass->step, pass->count - first),
                              .tile = from,
                              .end = end,
                              .following = smaller(ends ? end : from, last - 1)};
  return meet_run(pass, desk, &now);
}

/* Until all turns are over, or taken by others. */
static attn_status meet_part(struct pass *pass, struct desk *desk, size_t part, size_t home) {
  const attn_pool *pool = pass->plan->pool;
  struct attn_turns *turns = &pass->turns[part];
  struct attn_fold *fold = pass->folds ? &pass->folds[part] : NULL;
  struct attn_turn turn = {0};
  attn_status status = ATTN_OK;
  while (status == ATTN_OK && status_of(pass) == ATTN_OK && attn_turns_take(turns, home, &turn)) {
    const size_t first = turn.step * pass->step, end = smaller(first + pass->step, pass->count);
    if (fold && turn.run == 0) attn_fold_begin(fold, &pass->fold_plan, first, end);
    status = meet_turn(pass, desk, part, &turn);
    attn_turns_wait(turns, &turn);
    if (status == ATTN_OK && fold && pass->plan->fast)
      attn_fold_add(fold, &pass->fold_plan, first, end - first, &desk->share);
    if (status != ATTN_OK) fail(pass, status); /* before anybody goes on from here */
    const bool ends = attn_turns_give_back(turns, &turn) && status_of(pass) == ATTN_OK;
    if (ends && pass->plan->parts == 1) finish_queries(pass, first, end);
    if (pool && pool->pause) pool->pause(pool->context);
  }
  return status;
}

static void score_task(void *argument, size_t index) {
  struct pass *pass = argument;
  const size_t parts = pass->plan->parts;
  struct desk desk;
  attn_status status = desk_make(&desk, pass);
  /* its own part, with those who have the same one; then where help is wanted */
  const size_t steps = divided_up(pass->count, pass->step);
  const size_t home = attn_cut(steps, divided_up(pass->tasks, parts), index / parts);
  for (size_t i = 0; i < parts && status == ATTN_OK; i++)
    status = meet_part(pass, &desk, (index + i) % parts, i == 0 ? home : steps / 2);
  attn_room_leave(&desk.room);
  if (status != ATTN_OK) fail(pass, status);
}

static void weights_task(void *argument, size_t part) {
  struct pass *pass = argument;
  const struct attn_answering answering = answering_of(pass);
  const size_t begin = part_begins(pass->plan, part), end = part_begins(pass->plan, part + 1);
  for (size_t q = 0; q < pass->count; q++) {
    if (pass->left[q]) continue;
    const attn_status status = attn_answer_weights(&answering, q, &pass->folds[0], begin, end);
    if (status != ATTN_OK) fail_query(pass, status, q);
  }
}

/* ---- The pass ---- */

/* Candidates are ranked by their scores; only a fold has 1/temperature in them. */
struct attn_query_map attn_pass_query_map(const struct attn_pass_plan *plan, bool fast) {
  return (struct attn_query_map){.score = plan->request->score,
                                 .query_dim = plan->request->query_dim,
                                 .key_dim = plan->memory->key_dim,
                                 .beta = plan->combination.select ? 1 : plan->combination.beta,
                                 .fast = fast,
                                 .exact = !fast || plan->combination.select,
                                 .log = plan->combination.log};
}

static attn_status make_turns(struct pass *pass) {
  const struct attn_pass_plan *plan = pass->plan;
  const size_t steps = divided_up(pass->count, pass->step);
  /* a selection is offered candidates in the order of the rows */
  const bool adds = plan->fast && !plan->combination.select && plan->result->top == 0;
  const size_t together = adds ? 2 : 1;
  pass->turns = attn_room_take(plan->room, plan->parts, sizeof *pass->turns);
  if (!pass->turns) return ATTN_NO_MEMORY;
  for (size_t part = 0; part < plan->parts; part++) {
    const size_t tiles = part_begins(plan, part + 1) - part_begins(plan, part);
    struct attn_turns *turns = &pass->turns[part];
    *turns = (struct attn_turns){
        .steps = steps, .runs = divided_up(tiles, pass->run), .together = together};
    turns->progress = attn_room_take(plan->room, steps, sizeof *turns->progress);
    if (!turns->progress) return ATTN_NO_MEMORY;
    for (size_t step = 0; step < steps; step++) {
      atomic_init(&turns->progress[step].taken, 0);
      atomic_init(&turns->progress[step].over, 0);
    }
  }
  return ATTN_OK;
}

static attn_status prepare_selections(struct pass *pass) {
  const struct attn_pass_plan *plan = pass->plan;
  const attn_normalization *normalization = plan->request->normalization;
  const struct norm_kind *kind = normalization->kind;
  const size_t rows = plan->memory->rows, top_k = normalization->top_k;
  const size_t most = kind->rule == RULE_HARDMAX ? 1 : top_k < rows ? top_k : 0;
  pass->selections = calloc(plan->parts * pass->count, sizeof *pass->selections);
  if (!pass->selections) return ATTN_NO_MEMORY;
  for (size_t i = 0; i < plan->parts * pass->count; i++)
    attn_selection_init(&pass->selections[i], most, kind->window,
                        plan->fast ? plan->margins[i % pass->count] : (struct attn_margin){0});
  if (!plan->fast) return ATTN_OK;
  const struct attn_query_map exact = attn_pass_query_map(plan, false);
  return attn_scorer_create(&pass->judge, plan->memory, &exact);
}

static attn_status prepare_folds(struct pass *pass) {
  const struct attn_pass_plan *plan = pass->plan;
  attn_status status = ATTN_OK;
  pass->fold_plan =
      (struct attn_fold_plan){.norm = plan->request->normalization,
                              .kernels = pass->scorer.kernels,
                              .soft = plan->combination.soft,
                              .beta = plan->fast ? 1 : plan->combination.beta,
                              .value_dim = plan->memory->value_dim,
                              .rows = plan->memory->rows,
                              .top = plan->result->top,
                              .weights = plan->result->rows > 0 ? plan->result->weights : NULL,
                              .tile_count = plan->tile_count};
  if (pass->fold_plan.weights) {
    pass->fold_plan.anchors =
        attn_room_take(plan->room, attn_size_times(pass->count, plan->tile_count), sizeof(double));
    if (!pass->fold_plan.anchors) return ATTN_NO_MEMORY;
  }
  pass->folds = calloc(plan->parts, sizeof *pass->folds);
  if (!pass->folds) return ATTN_NO_MEMORY;
  for (size_t part = 0; part < plan->parts && status == ATTN_OK; part++) {
    status = attn_fold_create(&pass->folds[part], plan->room, &pass->fold_plan, pass->count);
    if (status == ATTN_OK && pass->turns[part].runs == 0)
      attn_fold_begin(&pass->folds[part], &pass->fold_plan, 0, pass->count);
  }
  return status;
}

static attn_status prepare(struct pass *pass) {
  const struct attn_pass_plan *plan = pass->plan;
  const struct attn_query_map map = attn_pass_query_map(plan, plan->fast);
  attn_status status = attn_scorer_create(&pass->scorer, plan->memory, &map);
  if (status != ATTN_OK) return status;
  choose_cuts(pass);
  pass->left = attn_room_take(plan->room, pass->count, sizeof *pass->left);
  if (!pass->left) return ATTN_NO_MEMORY;
  memset(pass->left, 0, pass->count * sizeof *pass->left);
  status = make_turns(pass);
  if (status != ATTN_OK) return status;

  return plan->combination.select ? prepare_selections(pass) : prepare_folds(pass);
}

static void pass_clear(struct pass *pass) {
  attn_scorer_clear(&pass->scorer);
  attn_scorer_clear(&pass->judge);
  for (size_t part = 0; pass->folds && part < pass->plan->parts; part++)
    attn_fold_free(&pass->folds[part]);
  for (size_t i = 0; pass->selections && i < pass->plan->parts * pass->count; i++)
    attn_selection_free(&pass->selections[i]);
  free(pass->folds);
  free(pass->selections);
}

attn_status attn_pass_run(const struct attn_pass_plan *plan, const struct attn_queries *queries,
                          double limit, size_t *redo, size_t *redo_count) {
  const size_t count = queries->count;
  struct pass pass = {.plan = plan, .queries = queries, .count = count, .limit = limit};
  atomic_init(&pass.status, ATTN_OK);
  attn_status status = prepare(&pass);
  if (status != ATTN_OK) goto done;

  attn_pool_run(plan->pool, pass.tasks, score_task, &pass);
  if (plan->combination.select && status_of(&pass) == ATTN_OK)
    attn_pool_run(plan->pool, count, select_task, &pass);
  else if (plan->parts > 1 && count * plan->memory->value_dim >= FINISH_LEAST)
    attn_pool_run(plan->pool, ATTN_SLICES, finish_task, &pass);
  else if (plan->parts > 1)
    finish_queries(&pass, 0, count);
  if (pass.fold_plan.weights && status_of(&pass) == ATTN_OK)
    attn_pool_run(plan->pool, plan->parts, weights_task, &pass);
  status = status_of(&pass);
  for (size_t q = 0; q < count; q++)
    if (pass.left[q]) redo[(*redo_count)++] = queries->which[q];
done:
  pass_clear(&pass);
  return status;
}
