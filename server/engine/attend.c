/* Attend requests: from what is asked to the answer or the problem.
 *
 * The whole answer is computed from one pinned version of the memory. Nothing is locked while
 * it computes; a replace or a delete meanwhile goes unnoticed here and frees the old rows when
 * the last request on them is done.
 *
 * Between attend_submit() and done() a request belongs to the batcher. The problems are those
 * that every protocol has: shapes that do not fit, a memory without rows, an answer beyond the
 * limit of replies, time that is over. */
#include "engine/attend.h"

#include <stdlib.h>

/* ---- Memories ---- */

bool attend_open_stored(struct attend_request *request, const struct attend_service *service,
                        const char *name, struct problem *problem) {
  request->service = service;
  request->memory = registry_find(service->registry, name, problem);
  if (!request->memory) return false;
  request->snapshot = attn_snapshot_ref(request->memory->snapshot);
  return true;
}

bool attend_open_ad_hoc(struct attend_request *request, const struct attend_service *service,
                        const struct attend_rows *rows, struct problem *problem) {
  attn_snapshot *empty = NULL;
  request->service = service;
  attn_status status = attn_snapshot_create(&empty, rows->key_dim, rows->value_dim);
  if (status == ATTN_OK)
    status = attn_snapshot_append(&request->snapshot, empty, rows->keys, rows->values, rows->count);
  attn_snapshot_free(empty);
  return status == ATTN_OK || problem_set_status(problem, status, "");
}

void attend_request_clear(struct attend_request *request) {
  free(request->arrays);
  attn_snapshot_free(request->snapshot);
  attn_score_free(request->score);
  attn_normalization_free(request->normalization);
  memory_free(request->memory);
}

/* ---- Checks ---- */

static void inherit(struct attend_request *request) {
  const struct memory *memory = request->memory;
  if (!memory) return;
  if (!request->score) request->score = attn_score_ref(memory->score);
  if (!request->normalization)
    request->normalization = attn_normalization_ref(memory->normalization);
}

static bool check_shapes(const struct attend_request *request, struct problem *problem) {
  const size_t key_dim = attn_snapshot_key_dim(request->snapshot);
  const size_t wanted = attn_score_query_dim(request->score, key_dim);
  attn_fault fault;
  if (attn_score_check_keys(request->score, key_dim, &fault) != ATTN_OK)
    return problem_set(problem, PROBLEM_SHAPE_MISMATCH, "/score", "%s", fault.detail);
  if (request->query_dim != wanted && wanted == key_dim)
    return problem_set(problem, PROBLEM_SHAPE_MISMATCH, "/queries/0",
                       "query 0 has %zu components, the memory's keys have %zu", request->query_dim,
                       key_dim);
  if (request->query_dim != wanted)
    return problem_set(problem, PROBLEM_SHAPE_MISMATCH, "/queries/0",
                       "query 0 has %zu components, the score %s asks for %zu", request->query_dim,
                       attn_score_get_info(request->score)->name, wanted);
  if (attn_snapshot_rows(request->snapshot) == 0)
    return problem_set(problem, PROBLEM_EMPTY_MEMORY, "",
                       "the memory has no rows; put some there before attending to it");
  return true;
}

/* Whether so many items for each query may fit a reply. */
static bool fits(const struct attend_request *request, size_t each, size_t least_bytes,
                 struct problem *problem) {
  const size_t count = request->query_count, limit = request->service->max_reply_bytes;
  size_t bytes;
  if (!__builtin_mul_overflow(count, each, &bytes) &&
      !__builtin_mul_overflow(bytes, least_bytes, &bytes) && bytes <= limit)
    return true;
  return problem_set(problem, PROBLEM_REPLY_TOO_LARGE, "",
                     "%zu x %zu numbers are more than a reply of at most %zu bytes can hold; send "
                     "fewer queries, or ask for weights \"none\" or {\"top\": K}",
                     count, each, limit);
}

/* Room for the answer, once that is known to fit a reply. */
static bool make_room(struct attend_request *request, struct problem *problem) {
  attn_result *result = &request->question.result;
  const struct attend_encoding *least = request->encoding;
  if (!fits(request, result->value_dim, least->number, problem) ||
      !fits(request, result->rows, least->number, problem) ||
      !fits(request, result->top, least->largest, problem))
    return false;
  request->arrays = malloc(attn_result_bytes(result));
  if (!request->arrays)
    return problem_set(problem, PROBLEM_OUT_OF_MEMORY, "",
                       "there is not enough memory for the reply");
  attn_result_place(result, request->arrays);
  return true;
}

/* ---- The way of a request ---- */

static void count_answer(const struct attend_request *request) {
  struct metrics *metrics = request->service->metrics;
  const struct question *question = &request->question;
  const int64_t queries = (int64_t)request->query_count;
  metrics_observe(metrics, HISTOGRAM_ATTEND_SECONDS, question->seconds);
  metrics_add(metrics, METRIC_QUERIES, queries);
  metrics_add(metrics, METRIC_SCORES, queries * (int64_t)attn_snapshot_rows(request->snapshot));
  metrics_add(metrics, METRIC_BATCHED, question->companions > 0);
}

static void set_failure(const struct question *question, struct problem *problem) {
  if (question->late)
    problem_set(problem, PROBLEM_TIMEOUT, "", "the answer was not there in time and was given up");
  else if (question->status == ATTN_NOT_REPRESENTABLE)
    problem_set(problem, PROBLEM_NOT_REPRESENTABLE, "",
                "the answer to query %zu has a number beyond the range of float32",
                question->result.fault_query);
  else
    problem_set_status(problem, question->status, "");
}

static void answered(struct question *question) {
  struct attend_request *request = (struct attend_request *)question;
  struct problem problem;
  if (question->status == ATTN_OK) {
    count_answer(request);
    request->done(request, NULL);
  } else {
    set_failure(question, &problem);
    request->done(request, &problem);
  }
}

static bool is_abandoned(const struct question *question) {
  const struct attend_request *request = (const struct attend_request *)question;
  return request->abandoned && request->abandoned(request);
}

static void prepare_question(struct attend_request *request) {
  const double timeout =
      request->timeout_seconds > 0 ? request->timeout_seconds : request->service->timeout_seconds;
  request->question = (struct question){.snapshot = request->snapshot,
                                        .request = {.queries = request->queries,
                                                    .query_count = request->query_count,
                                                    .query_dim = request->query_dim,
                                                    .score = request->score,
                                                    .normalization = request->normalization,
                                                    .weights_mode = request->weights,
                                                    .top = request->top},
                                        .deadline = request->began + timeout,
                                        .abandoned = is_abandoned,
                                        .done = answered};
  request->question.result = attn_result_for(request->snapshot, &request->question.request);
}

static void defer(struct attend_request *request, void **deferred) {
  struct question *list = *deferred;
  batcher_put_off(request->service->batcher, &list, &request->question);
  *deferred = list;
}

void attend_submit(struct attend_request *request, enum attend_executor executor, void **deferred) {
  struct batcher *batcher = request->service->batcher;
  struct problem problem;
  inherit(request);
  if (!check_shapes(request, &problem)) {
    request->done(request, &problem);
    return;
  }
  prepare_question(request);
  if (!make_room(request, &problem))
    request->done(request, &problem);
  else if (executor == ATTEND_DEFERRED)
    defer(request, deferred);
  else if (executor == ATTEND_INLINE)
    batcher_answer_here(batcher, &request->question);
  else
    batcher_ask(batcher, &request->question);
}

void attend_run_deferred(const struct attend_service *service, void **deferred) {
  struct question *list = *deferred;
  batcher_answer_put_off(service->batcher, &list);
  *deferred = list;
}
