/* One pass: scores tile by tile, folded or selected from, merged, answered (answer.c).
 *
 * The rows are cut into splits, one for each worker to begin with. In a split the work is cut
 * into items of a query block and a key block, a few tiles, which workers claim (schedule.h). The
 * states of a query block belong to the worker whose item is next; nothing else that is written
 * is shared, but for `status` and the schedule. When all items are complete the splits are merged
 * in the order of the rows: the answer may depend on the number of workers (by less than a unit
 * in the last place, mostly), never on which was faster or on the rest of the batch.
 *
 * If there is one split, the worker that completes the last item of a query block finishes its
 * queries too.
 *
 * Rejected: to begin a single query at the end where the pass before ended, whose last rows a
 * cache still has. That was 4 % faster for 5 and for 100 MB beside a cache of 32 MB, neither
 * faster nor slower for 15, 60 and 250 MB, and took an order of its own for what is added up.
 * Multiplying by the values of several tiles a block of columns at a time, so that their sums
 * stay in registers, gained 1.5 % for 256 queries and 768 dimensions. More splits than workers
 * cost a state of queries x value_dim each. prefetchnta for what no cache can keep, so that the
 * caches keep the rest, made a plain read 3 to 15 % longer. */
#include "attend/pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attend/answer.h"
#include "attend/pool.h"
#include "attend/schedule.h"

/* Queries of a query block at most: enough to fill the registers several times, few enough for
 * them, their scores and their products to stay in the cache beside a tile. 64 and 128 were
 * measured to be no faster. And the largest number of floats of its scores, or of its products. */
enum { QUERY_BLOCK = ATTN_QUERY_BLOCK, QUERY_BLOCK_FLOATS = 1 << 16 };

/* If a split has several workers from the start: aim for QUERY_BLOCKS_EACH query blocks per
 * worker, each of at least QUERY_BLOCK_LEAST queries, so that all end together. */
enum { QUERY_BLOCKS_EACH = 2, QUERY_BLOCK_LEAST = 16 };

/* A key block has the tiles of KEY_BLOCK_ROWS rows, KEY_BLOCK_TILES at most: one of narrow rows,
 * several of wide ones. */
enum { KEY_BLOCK_ROWS = 512, KEY_BLOCK_TILES = 8 };

/* Floats added to the stride of the scores, or those of a query block's queries would be mapped
 * to the same few sets of the first-level cache. */
enum { STRIDE_ODD = 16 };

/* Bytes of a memory that is in the second-level cache since the last pass. */
enum { SMALL_MEMORY = 1 << 20 };

/* Numbers of the outputs from which several workers finish them. */
enum { FINISH_LEAST = 1 << 15 };

/* Multiplications below which a task is not worth handing over. */
enum { TASK_LEAST = 1 << 18 };

struct pass {
  const struct attn_pass_plan *plan;
  struct attn_scorer scorer;
  struct attn_scorer rescorer; /* float64, for candidates that float32 has found */
  const struct attn_queries *queries;
  struct attn_fold_plan fold_plan;
  size_t count, tasks, block_queries, block_tiles; /* blocks: of the query and the key blocks */
  struct attn_schedule *schedules;                 /* splits */
  double limit;                                    /* of exponents, for float32 */
  struct attn_fold *folds;                         /* splits */
  struct attn_selection *selections;               /* splits x count */
  bool *left;                                      /* count: to be redone in float64 */
  atomic_int status;                               /* the first failure of any task */
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

/* How the rows are cut depends on the memory and the number of workers, never on the number of
 * queries: rounding differs between cuts, and a query gets the same answer alone and in a batch.
 * The cut of the queries changes no bit. */
size_t attn_pass_splits(const attn_snapshot *memory, const attn_pool *pool) {
  const size_t workers = workers_of(pool);
  const double splits = worth(memory);
  return splits < (double)workers ? larger((size_t)splits, 1) : workers;
}

static void choose_cuts(struct pass *pass) {
  const attn_snapshot *memory = pass->plan->memory;
  const size_t workers = workers_of(pass->plan->pool);
  const size_t splits = pass->plan->splits, count = pass->count;
  const double tasks = worth(memory) * (double)count;
  const size_t wanted = tasks < (double)workers ? larger((size_t)tasks, 1) : workers;
  const size_t each = smaller(divided_up(wanted, splits), count); /* workers of a split */
  /* entering a tile may be work, which is not to be done for each query block */
  const bool enters = !pass->plan->f32 || pass->scorer.score->maps.has_key;
  pass->block_tiles =
      !enters ? smaller(larger(KEY_BLOCK_ROWS / memory->tile_rows, 1), KEY_BLOCK_TILES) : 1;
  const size_t wide = larger(pass->block_tiles * memory->tile_rows, memory->value_dim);
  pass->tasks = larger(wanted, splits);
  pass->block_queries = smaller(smaller(QUERY_BLOCK, count), larger(QUERY_BLOCK_FLOATS / wide, 1));
  if (each > 1) {
    const size_t even = larger(divided_up(count, QUERY_BLOCKS_EACH * each), QUERY_BLOCK_LEAST);
    pass->block_queries = smaller(pass->block_queries, smaller(even, divided_up(count, each)));
  }
}

/* The first tile of a split, or of the next one that has any. */
static size_t split_begins(const struct attn_pass_plan *plan, size_t split) {
  size_t low = 0, high = plan->tile_count;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (plan->tiles[middle].split < split)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* ---- Tasks ---- */

/* What a task computes with, in an arena of its own. */
struct workspace {
  struct attn_arena arena;
  struct attn_scratch scratch;
  struct attn_score_view view; /* a query block with a key block */
  struct attn_partial partial;
  double *scores_f64, *values_f64;
  const struct attn_tile *entered; /* the last one that was scored */
};

static bool partial_make(struct attn_partial *partial, struct attn_arena *arena, size_t count,
                         size_t dim) {
  *partial = (struct attn_partial){
      .max = attn_arena_alloc(arena, count, sizeof *partial->max),
      .sum = attn_arena_alloc(arena, count, sizeof *partial->sum),
      .product = attn_arena_alloc(arena, attn_size_times(count, dim), sizeof *partial->product)};
  return partial->max && partial->sum && partial->product;
}

static attn_status workspace_make(struct workspace *workspace, const struct pass *pass) {
  const attn_snapshot *memory = pass->plan->memory;
  const size_t stride = pass->block_tiles * memory->tile_rows + STRIDE_ODD,
               scores = pass->block_queries * stride;
  const size_t products = attn_size_times(pass->block_queries, memory->value_dim);
  const size_t values = memory->tile_rows * memory->value_dim;
  const bool f32 = pass->plan->f32;
  *workspace = (struct workspace){
      .arena = attn_arena_begin(pass->plan->pool, f32 ? (scores + products) * sizeof(float)
                                                      : (scores + values) * sizeof(double))};
  const attn_status status =
      attn_scratch_make(&workspace->scratch, &workspace->arena, &pass->scorer, memory->tile_rows);
  if (status != ATTN_OK) return status;
  if (f32) {
    workspace->view = (struct attn_score_view){
        attn_arena_alloc(&workspace->arena, scores, sizeof(float)), stride};
    const bool made = partial_make(&workspace->partial, &workspace->arena, pass->block_queries,
                                   memory->value_dim);
    return made && workspace->view.data ? ATTN_OK : ATTN_NO_MEMORY;
  }
  workspace->scores_f64 =
      attn_arena_alloc(&workspace->arena, scores, sizeof *workspace->scores_f64);
  workspace->values_f64 =
      attn_arena_alloc(&workspace->arena, values, sizeof *workspace->values_f64);
  return workspace->scores_f64 && workspace->values_f64 ? ATTN_OK : ATTN_NO_MEMORY;
}

static attn_status select_from(struct pass *pass, const struct workspace *workspace, size_t split,
                               const struct attn_scored_block *scored) {
  const size_t rows = scored->rows, first = scored->tiles->first;
  attn_status status = ATTN_OK;
  for (size_t q = 0; q < scored->count && status == ATTN_OK; q++) {
    struct attn_selection *selection = &pass->selections[split * pass->count + scored->first + q];
    status =
        pass->plan->f32
            ? attn_selection_offer_floats(selection, workspace->view.data + q * scored->stride,
                                          rows, first, pass->scorer.kernels)
            : attn_selection_offer(selection, workspace->scores_f64 + q * rows, rows, first, 1);
  }
  return status;
}

static bool is_cancelled(const attn_request *request) {
  return request->cancelled && request->cancelled(request->cancel_context);
}

/* A query block with a key block. */
struct block_args {
  size_t split, first, count;
  size_t tile, end; /* of the key block */
  size_t next;      /* the tile that is likely next; the key block's last one: no new one is */
};

/* What is read next, once the scores with tile t are computed. `fresh`: the tile is not the one
 * that this worker scored last. */
static struct attn_prefetch after_scores(const struct attn_pass_plan *plan,
                                         const struct attn_scored_block *scored, size_t t,
                                         bool fresh) {
  if (!scored->prefetches) return (struct attn_prefetch){0};
  if (t + 1 < scored->index + scored->tile_count)
    return attn_prefetch_keys(&plan->tiles[t + 1], plan->memory->key_dim);
  if (plan->traits.select) return scored->prefetch;
  return fresh ? attn_prefetch_values(scored->tiles, plan->memory->value_dim)
               : (struct attn_prefetch){0};
}

static attn_status score_block(struct pass *pass, struct workspace *workspace,
                               const struct block_args *args, struct attn_scored_block *scored) {
  const struct attn_pass_plan *plan = pass->plan;
  for (size_t t = args->tile; t < args->end; scored->rows += plan->tiles[t++].rows) {
    const struct attn_tile *tile = &plan->tiles[t];
    const bool fresh = workspace->entered != tile;
    if (is_cancelled(plan->request)) return ATTN_CANCELLED;
    if (status_of(pass) != ATTN_OK) return status_of(pass);
    workspace->scratch.prefetch = (struct attn_prefetch){0};
    if (fresh) {
      workspace->entered = tile;
      attn_scorer_enter_tile(&pass->scorer, tile, &workspace->scratch);
      if (!plan->f32 && !plan->traits.select)
        pass->scorer.kernels->widen_values(workspace->values_f64, &tile->values, tile->rows,
                                           plan->memory->value_dim);
    }
    workspace->scratch.prefetch = after_scores(plan, scored, t, fresh);
    if (plan->f32)
      attn_scorer_f32(
          &pass->scorer, tile, &workspace->scratch, pass->queries, args->first, args->count,
          (struct attn_score_view){workspace->view.data + scored->rows, workspace->view.ld});
    else
      attn_scorer_f64(&pass->scorer, tile, &workspace->scratch, pass->queries, args->first,
                      args->count, workspace->scores_f64);
  }
  return ATTN_OK;
}

static attn_status compute_block(struct pass *pass, struct workspace *workspace,
                                 const struct block_args *args) {
  const struct attn_pass_plan *plan = pass->plan;
  const attn_snapshot *memory = plan->memory;
  struct attn_scored_block scored = {.tiles = &plan->tiles[args->tile],
                                     .tile_count = args->end - args->tile,
                                     .index = args->tile,
                                     .first = args->first,
                                     .count = args->count,
                                     .which = pass->queries->which + args->first,
                                     .stride = workspace->view.ld,
                                     .prefetches = !is_small(memory)};
  if (scored.prefetches && args->next + 1 != args->end)
    scored.prefetch = attn_prefetch_keys(&plan->tiles[args->next], memory->key_dim);

  const attn_status status = score_block(pass, workspace, args, &scored);
  if (status != ATTN_OK) return status;
  if (plan->traits.select) return select_from(pass, workspace, args->split, &scored);
  if (plan->f32)
    return attn_fold_f32(&pass->folds[args->split], &pass->fold_plan, &scored, workspace->view.data,
                         &workspace->partial);
  return attn_fold_f64(&pass->folds[args->split], &pass->fold_plan, &scored, workspace->scores_f64,
                       workspace->values_f64);
}

/* ---- Finishing (answer.c) ---- */

static struct attn_finish_args finish_args_of(struct pass *pass) {
  return (struct attn_finish_args){.plan = pass->plan,
                                   .queries = pass->queries,
                                   .fold_plan = &pass->fold_plan,
                                   .rescorer = &pass->rescorer};
}

static void select_task(void *argument, size_t q) {
  struct pass *pass = argument;
  const struct attn_finish_args args = finish_args_of(pass);
  struct attn_selection *selection = &pass->selections[q];
  attn_status status = ATTN_OK;
  for (size_t split = 1; split < pass->plan->splits && status == ATTN_OK; split++)
    status = attn_selection_merge(selection, &pass->selections[split * pass->count + q]);
  if (status == ATTN_OK) status = attn_answer_selection(&args, q, selection);
  if (status != ATTN_OK) fail_query(pass, status, q);
}

static attn_status finish_fold(struct pass *pass, size_t q) {
  const struct attn_finish_args args = finish_args_of(pass);
  struct attn_fold *fold = &pass->folds[0];
  attn_status status = ATTN_OK;
  for (size_t split = 1; split < pass->plan->splits && status == ATTN_OK; split++)
    status = attn_fold_merge(fold, &pass->folds[split], &pass->fold_plan, q);
  if (status != ATTN_OK) return status;
  if (pass->plan->f32 && !(fabs(fold->max[q]) <= pass->limit)) {
    pass->left[q] = true;
    return ATTN_OK;
  }
  return attn_answer_fold(&args, q, fold);
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

/* ---- Work items ---- */

static attn_status compute_item(struct pass *pass, struct workspace *workspace, size_t split,
                                const struct attn_work_item *item) {
  const size_t begin = split_begins(pass->plan, split), last = split_begins(pass->plan, split + 1);
  const size_t from = begin + item->key_block * pass->block_tiles,
               end = smaller(from + pass->block_tiles, last);
  const size_t first = item->query_block * pass->block_queries;
  const bool ends =
      first + pass->block_queries >= pass->count; /* the next item is of the next key block */
  const struct block_args args = {.split = split,
                                  .first = first,
                                  .count = smaller(pass->block_queries, pass->count - first),
                                  .tile = from,
                                  .end = end,
                                  .next = smaller(ends ? end : from, last - 1)};
  return compute_block(pass, workspace, &args);
}

/* Until all items are complete, or claimed by others. */
static attn_status compute_split(struct pass *pass, struct workspace *workspace, size_t split,
                                 size_t preferred) {
  const attn_pool *pool = pass->plan->pool;
  struct attn_schedule *schedule = &pass->schedules[split];
  struct attn_fold *fold = pass->folds ? &pass->folds[split] : NULL;
  struct attn_work_item item = {0};
  attn_status status = ATTN_OK;
  while (status == ATTN_OK && status_of(pass) == ATTN_OK &&
         attn_schedule_claim(schedule, preferred, &item)) {
    const size_t first = item.query_block * pass->block_queries,
                 end = smaller(first + pass->block_queries, pass->count);
    if (fold && item.key_block == 0) attn_fold_begin(fold, &pass->fold_plan, first, end);
    status = compute_item(pass, workspace, split, &item);
    attn_schedule_wait(schedule, &item);
    if (status == ATTN_OK && fold && pass->plan->f32)
      attn_fold_add(fold, &pass->fold_plan, first, end - first, &workspace->partial);
    if (status != ATTN_OK) fail(pass, status); /* before anybody goes on from here */
    const bool ends = attn_schedule_complete(schedule, &item) && status_of(pass) == ATTN_OK;
    if (ends && pass->plan->splits == 1) finish_queries(pass, first, end);
    if (pool && pool->pause) pool->pause(pool->context);
  }
  return status;
}

static void score_task(void *argument, size_t index) {
  struct pass *pass = argument;
  const size_t splits = pass->plan->splits;
  struct workspace workspace;
  attn_status status = workspace_make(&workspace, pass);
  /* its own split, with the workers that begin with the same one; then the others */
  const size_t query_blocks = divided_up(pass->count, pass->block_queries);
  const size_t preferred = attn_cut(query_blocks, divided_up(pass->tasks, splits), index / splits);
  for (size_t i = 0; i < splits && status == ATTN_OK; i++)
    status = compute_split(pass, &workspace, (index + i) % splits,
                           i == 0 ? preferred : query_blocks / 2);
  attn_arena_end(&workspace.arena);
  if (status != ATTN_OK) fail(pass, status);
}

static void weights_task(void *argument, size_t split) {
  struct pass *pass = argument;
  const struct attn_finish_args args = finish_args_of(pass);
  const size_t begin = split_begins(pass->plan, split), end = split_begins(pass->plan, split + 1);
  for (size_t q = 0; q < pass->count; q++) {
    if (pass->left[q]) continue;
    const attn_status status = attn_answer_weights(&args, q, &pass->folds[0], begin, end);
    if (status != ATTN_OK) fail_query(pass, status, q);
  }
}

/* ---- The pass ---- */

/* Candidates are ranked by their scores; only a fold has 1/temperature in them. */
struct attn_query_map attn_pass_query_map(const struct attn_pass_plan *plan, bool f32) {
  return (struct attn_query_map){.score = plan->request->score,
                                 .query_dim = plan->request->query_dim,
                                 .key_dim = plan->memory->key_dim,
                                 .beta = plan->traits.select ? 1 : plan->traits.beta,
                                 .f32 = f32,
                                 .f64 = !f32 || plan->traits.select,
                                 .log = plan->traits.log};
}

static attn_status make_schedules(struct pass *pass) {
  const struct attn_pass_plan *plan = pass->plan;
  const size_t query_blocks = divided_up(pass->count, pass->block_queries);
  /* a selection is offered candidates in the order of the rows */
  const bool adds = plan->f32 && !plan->traits.select && plan->result->top == 0;
  const size_t max_workers = adds ? 2 : 1;
  pass->schedules = attn_arena_alloc(plan->arena, plan->splits, sizeof *pass->schedules);
  if (!pass->schedules) return ATTN_NO_MEMORY;
  for (size_t split = 0; split < plan->splits; split++) {
    const size_t tiles = split_begins(plan, split + 1) - split_begins(plan, split);
    struct attn_schedule *schedule = &pass->schedules[split];
    *schedule = (struct attn_schedule){.query_blocks = query_blocks,
                                       .key_blocks = divided_up(tiles, pass->block_tiles),
                                       .max_workers = max_workers};
    schedule->progress = attn_arena_alloc(plan->arena, query_blocks, sizeof *schedule->progress);
    if (!schedule->progress) return ATTN_NO_MEMORY;
    for (size_t b = 0; b < query_blocks; b++) {
      atomic_init(&schedule->progress[b].claimed, 0);
      atomic_init(&schedule->progress[b].done, 0);
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
  pass->selections = calloc(plan->splits * pass->count, sizeof *pass->selections);
  if (!pass->selections) return ATTN_NO_MEMORY;
  for (size_t i = 0; i < plan->splits * pass->count; i++)
    attn_selection_init(&pass->selections[i], most, kind->window,
                        plan->f32 ? plan->margins[i % pass->count] : (struct attn_margin){0});
  if (!plan->f32) return ATTN_OK;
  const struct attn_query_map f64 = attn_pass_query_map(plan, false);
  return attn_scorer_create(&pass->rescorer, plan->memory, &f64);
}

static attn_status prepare_folds(struct pass *pass) {
  const struct attn_pass_plan *plan = pass->plan;
  attn_status status = ATTN_OK;
  pass->fold_plan =
      (struct attn_fold_plan){.norm = plan->request->normalization,
                              .kernels = pass->scorer.kernels,
                              .soft = plan->traits.soft,
                              .beta = plan->f32 ? 1 : plan->traits.beta,
                              .value_dim = plan->memory->value_dim,
                              .rows = plan->memory->rows,
                              .top = plan->result->top,
                              .weights = plan->result->rows > 0 ? plan->result->weights : NULL,
                              .tile_count = plan->tile_count};
  if (pass->fold_plan.weights) {
    pass->fold_plan.anchors = attn_arena_alloc(
        plan->arena, attn_size_times(pass->count, plan->tile_count), sizeof(double));
    if (!pass->fold_plan.anchors) return ATTN_NO_MEMORY;
  }
  pass->folds = calloc(plan->splits, sizeof *pass->folds);
  if (!pass->folds) return ATTN_NO_MEMORY;
  for (size_t split = 0; split < plan->splits && status == ATTN_OK; split++) {
    status = attn_fold_create(&pass->folds[split], plan->arena, &pass->fold_plan, pass->count);
    if (status == ATTN_OK && pass->schedules[split].key_blocks == 0)
      attn_fold_begin(&pass->folds[split], &pass->fold_plan, 0, pass->count);
  }
  return status;
}

static attn_status prepare(struct pass *pass) {
  const struct attn_pass_plan *plan = pass->plan;
  const struct attn_query_map map = attn_pass_query_map(plan, plan->f32);
  attn_status status = attn_scorer_create(&pass->scorer, plan->memory, &map);
  if (status != ATTN_OK) return status;
  choose_cuts(pass);
  pass->left = attn_arena_alloc(plan->arena, pass->count, sizeof *pass->left);
  if (!pass->left) return ATTN_NO_MEMORY;
  memset(pass->left, 0, pass->count * sizeof *pass->left);
  status = make_schedules(pass);
  if (status != ATTN_OK) return status;

  return plan->traits.select ? prepare_selections(pass) : prepare_folds(pass);
}

static void pass_clear(struct pass *pass) {
  attn_scorer_clear(&pass->scorer);
  attn_scorer_clear(&pass->rescorer);
  for (size_t split = 0; pass->folds && split < pass->plan->splits; split++)
    attn_fold_free(&pass->folds[split]);
  for (size_t i = 0; pass->selections && i < pass->plan->splits * pass->count; i++)
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
  if (plan->traits.select && status_of(&pass) == ATTN_OK)
    attn_pool_run(plan->pool, count, select_task, &pass);
  else if (plan->splits > 1 && count * plan->memory->value_dim >= FINISH_LEAST)
    attn_pool_run(plan->pool, ATTN_SLICES, finish_task, &pass);
  else if (plan->splits > 1)
    finish_queries(&pass, 0, count);
  if (pass.fold_plan.weights && status_of(&pass) == ATTN_OK)
    attn_pool_run(plan->pool, plan->splits, weights_task, &pass);
  status = status_of(&pass);
  for (size_t q = 0; q < count; q++)
    if (pass.left[q]) redo[(*redo_count)++] = queries->which[q];
done:
  pass_clear(&pass);
  return status;
}
