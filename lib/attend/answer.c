/* Answers: where sums and candidates become outputs and weights, in the float32 of the reply.
 *
 * Up to here everything is float64, and a number that float32 can't hold is a failure of its
 * query, never an infinity in the reply. Each query is answered by one task alone, into places
 * that no other query has. */
#include "attend/answer.h"

#include <math.h>
#include <string.h>

static size_t number_of(const struct attn_finish_args *args, size_t q) {
  return args->queries->which[q];
}

/* Candidates with their weights, in the order of the reply. `others` rows of
 * the memory are no candidates and have weight 0: they take their places before
 * negative weights, and are left out like every row of weight 0. */
static void answer_largest(const struct attn_finish_args *args, size_t q,
                           struct attn_candidate *items, size_t count, size_t others) {
  const attn_result *result = args->plan->result;
  const size_t query = number_of(args, q), room = result->top;
  attn_candidates_order(items, count);
  size_t kept = 0, place = 0;
  for (size_t i = 0; i < count; i++, place++) {
    if (items[i].weight < 0) {
      place += others;
      others = 0;
    }
    if (place >= room) break;
    if ((float)items[i].weight != 0)
      result->largest[query * room + kept++] =
          (attn_weight){.row = items[i].row, .weight = (float)items[i].weight};
  }
  result->largest_count[query] = kept;
}

static attn_status answer_outputs(const struct attn_finish_args *args, size_t q, const double *sums,
                                  double factor) {
  const struct attn_kernels *kernels = attn_kernels();
  const size_t dim = args->plan->memory->value_dim;
  float *outputs = args->plan->result->outputs + number_of(args, q) * dim;
  kernels->row_narrow(outputs, sums, dim, factor);
  return kernels->all_finite(outputs, dim) ? ATTN_OK : ATTN_NOT_REPRESENTABLE;
}

/* ---- Selections ---- */

static const struct attn_tile *tile_of_row(const struct attn_pass_plan *plan, size_t row) {
  size_t low = 0, high = plan->tile_count;
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    if (plan->tiles[middle].first <= row)
      low = middle;
    else
      high = middle;
  }
  return &plan->tiles[low];
}

/* Candidates that float32 has found get their float64 scores. */
static attn_status rescore(const struct attn_finish_args *args, struct attn_arena *arena, size_t q,
                           struct attn_selection *selection) {
  struct attn_scratch scratch;
  const attn_status status = attn_scratch_make(&scratch, arena, args->rescorer, 1);
  for (size_t c = 0; c < selection->count && status == ATTN_OK; c++) {
    struct attn_candidate *item = &selection->items[c];
    const struct attn_tile *tile = tile_of_row(args->plan, item->row);
    item->score = attn_scorer_f64_pair(args->rescorer, tile, item->row - tile->first, &scratch,
                                       args->queries, q);
  }
  return status;
}

/* output = sum of weight * value over the candidates alone. */
static attn_status gather(const struct attn_finish_args *args, struct attn_arena *arena, size_t q,
                          const struct attn_selection *selection) {
  const struct attn_kernels *kernels = attn_kernels();
  const size_t dim = args->plan->memory->value_dim;
  double *sums = attn_arena_alloc(arena, dim, sizeof *sums);
  double *value = attn_arena_alloc(arena, dim, sizeof *value);
  if (!sums || !value) return ATTN_NO_MEMORY;
  memset(sums, 0, dim * sizeof *sums);
  for (size_t c = 0; c < selection->count; c++) {
    const struct attn_candidate *item = &selection->items[c];
    if (item->weight == 0) continue;
    const struct attn_tile *tile = tile_of_row(args->plan, item->row);
    attn_tile_value(tile, item->row - tile->first, dim, value);
    kernels->row_add_f64(sums, value, dim, item->weight);
  }
  return answer_outputs(args, q, sums, 1);
}

static attn_status scatter(const struct attn_finish_args *args, size_t q,
                           const struct attn_selection *selection) {
  const size_t rows = args->plan->memory->rows;
  float *weights = args->plan->result->weights + number_of(args, q) * rows;
  bool finite = true;
  memset(weights, 0, rows * sizeof *weights);
  for (size_t c = 0; c < selection->count; c++) {
    const struct attn_candidate *item = &selection->items[c];
    weights[item->row] = (float)item->weight;
    finite &= isfinite(weights[item->row]) != 0;
  }
  return finite ? ATTN_OK : ATTN_NOT_REPRESENTABLE;
}

attn_status attn_answer_selection(const struct attn_finish_args *args, size_t q,
                                  struct attn_selection *selection) {
  const struct attn_pass_plan *plan = args->plan;
  struct attn_arena arena = attn_arena_begin(plan->pool, 0);
  attn_status status = ATTN_OK;
  if (plan->f32) {
    attn_selection_narrow(selection);
    status = rescore(args, &arena, q, selection);
  }
  if (status == ATTN_OK) {
    attn_selection_sort(selection);
    attn_selection_weigh(selection, plan->request->normalization, plan->traits.log);
    status = gather(args, &arena, q, selection);
  }
  if (status == ATTN_OK && plan->result->rows > 0) status = scatter(args, q, selection);
  if (status == ATTN_OK && plan->result->top > 0)
    answer_largest(args, q, selection->items, selection->count,
                   plan->memory->rows - selection->count);
  attn_arena_end(&arena);
  return status;
}

/* ---- Folds ---- */

/* The K largest of a fold: by score, unless the total turned them around. */
static void answer_fold_largest(const struct attn_finish_args *args, size_t q,
                                struct attn_fold *fold) {
  const bool turned = fold->smallest && fold->sum[q] < 0;
  struct attn_selection *from = turned ? &fold->smallest[q] : &fold->largest[q];
  for (size_t c = 0; c < from->count; c++) {
    const double score = turned ? -from->items[c].score : from->items[c].score;
    from->items[c].weight = attn_fold_weight(fold, args->fold_plan, q, score);
  }
  answer_largest(args, q, from->items, from->count, 0);
}

attn_status attn_answer_fold(const struct attn_finish_args *args, size_t q,
                             struct attn_fold *fold) {
  const struct attn_fold_plan *fold_plan = args->fold_plan;
  const double factor = attn_fold_factor(fold, fold_plan, q, fold_plan->soft ? fold->max[q] : 1);
  const double *sums = fold->outputs + q * fold_plan->value_dim;
  const attn_status status = answer_outputs(args, q, sums, factor);
  if (status == ATTN_OK && args->plan->result->top > 0) answer_fold_largest(args, q, fold);
  return status;
}

attn_status attn_answer_weights(const struct attn_finish_args *args, size_t q,
                                const struct attn_fold *fold, size_t begin, size_t end) {
  const struct attn_pass_plan *plan = args->plan;
  const struct attn_fold_plan *fold_plan = args->fold_plan;
  float *row = fold_plan->weights + number_of(args, q) * plan->memory->rows;
  bool finite = true;
  for (size_t t = begin; t < end; t++) {
    const struct attn_tile *tile = &plan->tiles[t];
    const double anchor = fold_plan->anchors[q * plan->tile_count + t];
    const double factor = attn_fold_factor(fold, fold_plan, q, anchor);
    finite &= attn_kernels()->row_finish(row + tile->first, tile->rows, factor);
  }
  return finite ? ATTN_OK : ATTN_NOT_REPRESENTABLE;
}
