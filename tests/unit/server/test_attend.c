/* The attend request without HTTP and JSON: a protocol of the test's own submits, and is called
 * back once with the answer or the problem. Answers are those of attn_attend() on the same rows,
 * to the last bit, on whichever thread they were computed. */
#include "engine/attend.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "base/clock.h"
#include "unit.h"

enum { ROWS = 300, DIM = 16, VALUE_DIM = 5, QUERIES = 3, TOP = 4, NUMBERS = QUERIES * ROWS };

struct fixture {
  struct workers *workers;
  struct attend_service service;
  atomic_int done;
};

static float number(uint64_t *state) {
  return (float)((double)next_random(state) * 0x1p-63 - 1);
}

static float keys[ROWS * DIM], values[ROWS * VALUE_DIM], queries[QUERIES * DIM];

static attn_snapshot *snapshot_of(size_t rows) {
  attn_snapshot *empty, *filled;
  ck_assert_int_eq(attn_snapshot_create(&empty, DIM, VALUE_DIM), ATTN_OK);
  ck_assert_int_eq(attn_snapshot_append(&filled, empty, keys, values, rows), ATTN_OK);
  attn_snapshot_free(empty);
  return filled;
}

static void put(struct fixture *fixture, const char *name, size_t rows, const char *damage) {
  attn_snapshot *snapshot = snapshot_of(rows);
  attn_score *score;
  attn_normalization *norm;
  ck_assert_int_eq(attn_score_create(&score, "gaussian", NULL, 0, NULL), ATTN_OK);
  ck_assert_int_eq(attn_normalization_create(&norm, "sum", NULL, 0, NULL), ATTN_OK);
  struct memory *memory = memory_create(&(struct memory){.name = name,
                                                         .version = 7,
                                                         .snapshot = snapshot,
                                                         .score = score,
                                                         .normalization = norm,
                                                         .damaged = damage});
  ck_assert(memory && registry_put(fixture->service.registry, memory));
  attn_snapshot_free(snapshot);
  attn_score_free(score);
  attn_normalization_free(norm);
}

static void set_up(struct fixture *fixture) {
  uint64_t state = 11;
  for (size_t i = 0; i < ROWS * DIM; i++)
    keys[i] = number(&state);
  for (size_t i = 0; i < ROWS * VALUE_DIM; i++)
    values[i] = number(&state);
  for (size_t i = 0; i < QUERIES * DIM; i++)
    queries[i] = number(&state);
  *fixture = (struct fixture){.workers = workers_create(1, 100)};
  fixture->service =
      (struct attend_service){.registry = registry_create(),
                              .batcher = batcher_create(fixture->workers, NULL, NULL),
                              .metrics = metrics_create(NULL, 0),
                              .timeout_seconds = 1000,
                              .max_reply_bytes = 1 << 20};
  ck_assert(fixture->service.registry && fixture->service.batcher && fixture->service.metrics);
  put(fixture, "m", ROWS, NULL);
}

static void tear_down(struct fixture *fixture) {
  workers_free(fixture->workers);
  batcher_free(fixture->service.batcher);
  registry_free(fixture->service.registry);
  metrics_free(fixture->service.metrics);
}

/* ---- A protocol ---- */

/* What the callback was told, copied before the request was cleared. */
struct call {
  struct attend_request request; /* first */
  struct fixture *fixture;
  enum attend_executor executor;
  int called;
  bool failed, left;
  struct problem problem;
  attn_result result;
  int64_t version; /* of the memory, 0 for rows of the request's own */
  float outputs[QUERIES * VALUE_DIM], weights[NUMBERS];
  attn_weight largest[QUERIES * TOP];
  size_t largest_count[QUERIES];
};

static const struct attend_encoding encoding = {.number = 2, .largest = 20};

static void done(struct attend_request *request, const struct problem *problem) {
  struct call *call = (struct call *)request;
  call->called++;
  call->failed = problem != NULL;
  call->version = request->memory ? request->memory->version : 0;
  if (problem) {
    call->problem = *problem;
  } else {
    call->result = *attend_result(request);
    call->result.outputs = call->outputs;
    call->result.weights = call->weights;
    call->result.largest = call->largest;
    call->result.largest_count = call->largest_count;
    attn_result_copy(&call->result, attend_result(request));
  }
  attend_request_clear(request);
  atomic_fetch_add(&call->fixture->done, 1);
}

static bool has_left(const struct attend_request *request) {
  return ((const struct call *)request)->left;
}

static void prepare(struct call *call, struct fixture *fixture, attn_weights_mode weights) {
  *call = (struct call){.fixture = fixture,
                        .request = {.queries = queries,
                                    .query_count = QUERIES,
                                    .query_dim = DIM,
                                    .weights = weights,
                                    .top = TOP,
                                    .began = clock_seconds(),
                                    .encoding = &encoding,
                                    .abandoned = has_left,
                                    .done = done}};
}

static void open_memory(struct call *call, const char *name) {
  struct problem problem;
  ck_assert_msg(attend_open_stored(&call->request, &call->fixture->service, name, &problem), "%s",
                problem.detail);
}

static void run_submit(void *argument) {
  struct call *call = argument;
  attend_submit(&call->request, call->executor, NULL);
}

static void wait_for(struct fixture *fixture, int count) {
  while (atomic_load(&fixture->done) < count)
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* As a protocol would: on a worker what may wait, here what is short. */
static void submit(struct call *call, enum attend_executor executor) {
  const int before = atomic_load(&call->fixture->done);
  void *deferred = NULL;
  call->executor = executor;
  if (executor == ATTEND_ON_WORKERS) {
    ck_assert(workers_submit(call->fixture->workers, run_submit, call, 0));
    wait_for(call->fixture, before + 1);
  } else {
    attend_submit(&call->request, executor, &deferred);
    ck_assert(executor == ATTEND_DEFERRED || deferred == NULL);
    attend_run_deferred(&call->fixture->service, &deferred);
    ck_assert_ptr_null(deferred);
  }
  ck_assert_int_eq(call->called, 1);
}

/* The same of the library, with as many workers to cut the rows for. */
static void check_answer(const struct call *call, const char *score, const char *norm) {
  static float outputs[QUERIES * VALUE_DIM], weights[NUMBERS];
  static attn_weight largest[QUERIES * TOP];
  static size_t largest_count[QUERIES];
  attn_snapshot *snapshot = snapshot_of(ROWS);
  attn_score *made_score;
  attn_normalization *made_norm;
  ck_assert_msg(!call->failed, "%s", call->problem.detail);
  ck_assert_int_eq(attn_score_create(&made_score, score, NULL, 0, NULL), ATTN_OK);
  ck_assert_int_eq(attn_normalization_create(&made_norm, norm, NULL, 0, NULL), ATTN_OK);
  const attn_request request = {.queries = queries,
                                .query_count = QUERIES,
                                .query_dim = DIM,
                                .score = made_score,
                                .normalization = made_norm,
                                .weights_mode = call->request.weights,
                                .top = TOP};
  attn_result result = attn_result_for(snapshot, &request);
  result.outputs = outputs;
  result.weights = weights;
  result.largest = largest;
  result.largest_count = largest_count;
  ck_assert_int_eq(attn_attend(snapshot, &request, &result, NULL), ATTN_OK);
  ck_assert_uint_eq(call->result.rows, result.rows);
  ck_assert_uint_eq(call->result.top, result.top);
  ck_assert_mem_eq(call->outputs, outputs, sizeof outputs);
  if (result.rows > 0) ck_assert_mem_eq(call->weights, weights, sizeof weights);
  for (size_t q = 0; result.top > 0 && q < QUERIES; q++) {
    ck_assert_uint_eq(call->largest_count[q], largest_count[q]);
    for (size_t i = 0; i < largest_count[q]; i++) {
      ck_assert_uint_eq(call->largest[q * TOP + i].row, largest[q * TOP + i].row);
      ck_assert(call->largest[q * TOP + i].weight == largest[q * TOP + i].weight);
    }
  }
  attn_snapshot_free(snapshot);
  attn_score_free(made_score);
  attn_normalization_free(made_norm);
}

/* ---- Answers ---- */

static const enum attend_executor executors[] = {ATTEND_ON_WORKERS, ATTEND_INLINE, ATTEND_DEFERRED};
static const attn_weights_mode modes[] = {ATTN_WEIGHTS_NONE, ATTN_WEIGHTS_FULL, ATTN_WEIGHTS_TOP};

START_TEST(test_stored) {
  struct fixture fixture;
  set_up(&fixture);
  for (size_t e = 0; e < 3; e++)
    for (size_t m = 0; m < 3; m++)
      for (int own = 0; own < 2; own++) {
        struct call call;
        prepare(&call, &fixture, modes[m]);
        open_memory(&call, "m");
        if (own)
          ck_assert_int_eq(attn_score_create(&call.request.score, "dot", NULL, 0, NULL), ATTN_OK);
        submit(&call, executors[e]);
        check_answer(&call, own ? "dot" : "gaussian", "sum");
        ck_assert_int_eq(call.version, 7);
      }
  tear_down(&fixture);
}
END_TEST

START_TEST(test_ad_hoc) {
  struct fixture fixture;
  set_up(&fixture);
  for (size_t e = 0; e < 3; e++) {
    struct call call;
    struct problem problem;
    float *own_keys = malloc(sizeof keys);
    memcpy(own_keys, keys, sizeof keys);
    const struct attend_rows rows = {own_keys, values, ROWS, DIM, VALUE_DIM};
    prepare(&call, &fixture, ATTN_WEIGHTS_FULL);
    ck_assert_int_eq(attn_score_create(&call.request.score, "cosine", NULL, 0, NULL), ATTN_OK);
    ck_assert_int_eq(
        attn_normalization_create(&call.request.normalization, "softmax", NULL, 0, NULL), ATTN_OK);
    ck_assert(attend_open_ad_hoc(&call.request, &fixture.service, &rows, &problem));
    free(own_keys); /* they were copied */
    submit(&call, executors[e]);
    check_answer(&call, "cosine", "softmax");
    ck_assert_int_eq(call.version, 0);
  }
  tear_down(&fixture);
}
END_TEST

/* What was opened is what is asked, whatever becomes of the name. */
START_TEST(test_a_memory_that_goes_meanwhile) {
  struct fixture fixture;
  struct call call;
  set_up(&fixture);
  prepare(&call, &fixture, ATTN_WEIGHTS_TOP);
  open_memory(&call, "m");
  ck_assert(registry_remove(fixture.service.registry, "m"));
  submit(&call, ATTEND_ON_WORKERS);
  check_answer(&call, "gaussian", "sum");
  ck_assert_int_eq(call.version, 7);
  tear_down(&fixture);
}
END_TEST

START_TEST(test_deferred_together) {
  enum { CALLS = 5 };
  struct fixture fixture;
  static struct call calls[CALLS];
  void *deferred = NULL;
  set_up(&fixture);
  for (size_t i = 0; i < CALLS; i++) {
    prepare(&calls[i], &fixture, ATTN_WEIGHTS_TOP);
    open_memory(&calls[i], "m");
    if (i == 3) calls[i].request.query_dim = DIM - 1; /* refused at once */
    attend_submit(&calls[i].request, ATTEND_DEFERRED, &deferred);
    ck_assert_int_eq(calls[i].called, i == 3);
  }
  ck_assert_ptr_nonnull(deferred);
  attend_run_deferred(&fixture.service, &deferred);
  for (size_t i = 0; i < CALLS; i++) {
    ck_assert_int_eq(calls[i].called, 1);
    ck_assert_int_eq(calls[i].failed, i == 3);
    if (i != 3) check_answer(&calls[i], "gaussian", "sum");
    if (i != 3) ck_assert_uint_eq(calls[i].request.question.companions, CALLS - 2);
  }
  tear_down(&fixture);
}
END_TEST

static void expect_metric(const struct fixture *fixture, const char *line) {
  struct buffer text;
  buffer_init(&text, 0);
  metrics_write(fixture->service.metrics, &text);
  ck_assert_msg(strstr(buffer_text(&text), line) != NULL, "%s in %s", line, buffer_text(&text));
  buffer_free(&text);
}

START_TEST(test_metrics) {
  struct fixture fixture;
  struct call call;
  set_up(&fixture);
  for (size_t e = 0; e < 3; e++) {
    prepare(&call, &fixture, ATTN_WEIGHTS_NONE);
    open_memory(&call, "m");
    submit(&call, executors[e]);
  }
  prepare(&call, &fixture, ATTN_WEIGHTS_NONE);
  open_memory(&call, "m");
  call.request.query_dim = 1;
  submit(&call, ATTEND_INLINE);
  ck_assert(call.failed);
  expect_metric(&fixture, "\nattentiond_queries_total 9\n");
  expect_metric(&fixture, "\nattentiond_scores_total 2700\n");
  expect_metric(&fixture, "\nattentiond_batched_requests_total 0\n");
  expect_metric(&fixture, "\nattentiond_attend_seconds_count 3\n");
  tear_down(&fixture);
}
END_TEST

/* ---- Problems ---- */

static void expect_problem(const struct call *call, enum problem_code code, const char *pointer,
                           const char *detail) {
  ck_assert_int_eq(call->called, 1);
  ck_assert(call->failed);
  ck_assert_str_eq(problem_info(call->problem.code)->code, problem_info(code)->code);
  ck_assert_str_eq(call->problem.pointer, pointer);
  ck_assert_msg(strstr(call->problem.detail, detail) != NULL, "'%s' lacks '%s'",
                call->problem.detail, detail);
}

START_TEST(test_memories_that_can_not_be_had) {
  struct fixture fixture;
  struct problem problem;
  struct call call;
  set_up(&fixture);
  put(&fixture, "broken", ROWS, "its chunks are gone");
  prepare(&call, &fixture, ATTN_WEIGHTS_NONE);
  ck_assert(!attend_open_stored(&call.request, &fixture.service, "nowhere", &problem));
  ck_assert_int_eq(problem.code, PROBLEM_MEMORY_NOT_FOUND);
  ck_assert_ptr_nonnull(strstr(problem.detail, "\"nowhere\""));
  ck_assert(!attend_open_stored(&call.request, &fixture.service, "broken", &problem));
  ck_assert_int_eq(problem.code, PROBLEM_MEMORY_DAMAGED);
  ck_assert_ptr_nonnull(strstr(problem.detail, "its chunks are gone"));
  const float infinite[DIM] = {INFINITY};
  const struct attend_rows rows = {infinite, values, 1, DIM, VALUE_DIM};
  ck_assert(!attend_open_ad_hoc(&call.request, &fixture.service, &rows, &problem));
  ck_assert_int_eq(problem.code, PROBLEM_INVALID_NUMBER);
  attend_request_clear(&call.request);
  ck_assert_int_eq(call.called, 0);
  tear_down(&fixture);
}
END_TEST

START_TEST(test_shapes) {
  struct fixture fixture;
  struct call call;
  set_up(&fixture);
  put(&fixture, "empty", 0, NULL);
  const float w[2 * DIM + 2] = {0};
  const attn_argument fits = {.name = "w", .data = w, .rows = 2, .cols = DIM};
  const attn_argument does_not = {.name = "w", .data = w, .rows = 2, .cols = DIM + 1};
  for (size_t e = 0; e < 3; e++) {
    prepare(&call, &fixture, ATTN_WEIGHTS_NONE);
    open_memory(&call, "m");
    call.request.query_dim = DIM + 1;
    submit(&call, executors[e]);
    expect_problem(&call, PROBLEM_SHAPE_MISMATCH, "/queries/0",
                   "query 0 has 17 components, the memory's keys have 16");
    prepare(&call, &fixture, ATTN_WEIGHTS_NONE);
    open_memory(&call, "m");
    ck_assert_int_eq(attn_score_create(&call.request.score, "bilinear", &fits, 1, NULL), ATTN_OK);
    submit(&call, executors[e]);
    expect_problem(&call, PROBLEM_SHAPE_MISMATCH, "/queries/0",
                   "query 0 has 16 components, the score bilinear asks for 2");
    prepare(&call, &fixture, ATTN_WEIGHTS_NONE);
    open_memory(&call, "m");
    ck_assert_int_eq(attn_score_create(&call.request.score, "bilinear", &does_not, 1, NULL),
                     ATTN_OK);
    submit(&call, executors[e]);
    expect_problem(&call, PROBLEM_SHAPE_MISMATCH, "/score",
                   "w has rows of 17 numbers, the keys have 16 components");
    prepare(&call, &fixture, ATTN_WEIGHTS_NONE);
    open_memory(&call, "empty");
    submit(&call, executors[e]);
    expect_problem(&call, PROBLEM_EMPTY_MEMORY, "", "has no rows");
  }
  tear_down(&fixture);
}
END_TEST

/* By the least that the protocol's encoding takes, to the byte. */
START_TEST(test_limit_of_replies) {
  const struct {
    attn_weights_mode mode;
    size_t least;
    const char *detail;
  } cases[] = {{ATTN_WEIGHTS_NONE, QUERIES * VALUE_DIM * 2, "3 x 5 numbers"},
               {ATTN_WEIGHTS_FULL, QUERIES * ROWS * 2, "3 x 300 numbers"},
               {ATTN_WEIGHTS_TOP, QUERIES * TOP * 20, "3 x 4 numbers"}};
  struct fixture fixture;
  struct call call;
  set_up(&fixture);
  for (size_t i = 0; i < 3; i++)
    for (size_t spare = 0; spare < 2; spare++) {
      fixture.service.max_reply_bytes = cases[i].least - 1 + spare;
      prepare(&call, &fixture, cases[i].mode);
      open_memory(&call, "m");
      submit(&call, ATTEND_INLINE);
      if (spare)
        check_answer(&call, "gaussian", "sum");
      else
        expect_problem(&call, PROBLEM_REPLY_TOO_LARGE, "", cases[i].detail);
    }
  tear_down(&fixture);
}
END_TEST

START_TEST(test_time_that_is_over) {
  struct fixture fixture;
  struct call call;
  set_up(&fixture);
  for (size_t e = 0; e < 3; e++)
    for (int own = 0; own < 2; own++) {
      prepare(&call, &fixture, ATTN_WEIGHTS_NONE);
      open_memory(&call, "m");
      fixture.service.timeout_seconds = own ? 1000 : 5;
      call.request.timeout_seconds = own ? 5 : 0;
      call.request.began -= 10;
      submit(&call, executors[e]);
      expect_problem(&call, PROBLEM_TIMEOUT, "", "not there in time");
    }
  prepare(&call, &fixture, ATTN_WEIGHTS_NONE);
  open_memory(&call, "m");
  fixture.service.timeout_seconds = 5;
  call.request.timeout_seconds = 1000;
  call.request.began -= 10;
  submit(&call, ATTEND_INLINE);
  check_answer(&call, "gaussian", "sum");
  tear_down(&fixture);
}
END_TEST

START_TEST(test_answers_beyond_float32) {
  struct fixture fixture;
  struct call call;
  set_up(&fixture);
  static float large[QUERIES * DIM];
  memcpy(large, queries, sizeof large);
  for (size_t i = 0; i < DIM; i++)
    large[DIM + i] = keys[i] * 3e38f;
  for (size_t e = 0; e < 3; e++) {
    prepare(&call, &fixture, ATTN_WEIGHTS_NONE);
    open_memory(&call, "m");
    call.request.queries = large;
    ck_assert_int_eq(attn_score_create(&call.request.score, "dot", NULL, 0, NULL), ATTN_OK);
    ck_assert_int_eq(attn_normalization_create(&call.request.normalization, "none", NULL, 0, NULL),
                     ATTN_OK);
    submit(&call, executors[e]);
    expect_problem(&call, PROBLEM_NOT_REPRESENTABLE, "", "query 1 has a number beyond");
  }
  tear_down(&fixture);
}
END_TEST

/* Holds the only worker until others wait behind it. */
struct gate {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  bool open;
};

static void wait_at_gate(void *argument) {
  struct gate *gate = argument;
  pthread_mutex_lock(&gate->mutex);
  while (!gate->open)
    pthread_cond_wait(&gate->changed, &gate->mutex);
  pthread_mutex_unlock(&gate->mutex);
}

/* Those that had to wait are asked whether somebody still does, and are batched. */
START_TEST(test_waiting_together) {
  enum { CALLS = 6 };
  struct fixture fixture;
  static struct call calls[CALLS];
  struct gate gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
  set_up(&fixture);
  ck_assert(workers_submit(fixture.workers, wait_at_gate, &gate, 0));
  for (size_t i = 0; i < CALLS; i++) {
    prepare(&calls[i], &fixture, ATTN_WEIGHTS_TOP);
    open_memory(&calls[i], "m");
    calls[i].executor = ATTEND_ON_WORKERS;
    calls[i].left = i == 2;
    ck_assert(workers_submit(fixture.workers, run_submit, &calls[i], 0));
  }
  pthread_mutex_lock(&gate.mutex);
  gate.open = true;
  pthread_cond_broadcast(&gate.changed);
  pthread_mutex_unlock(&gate.mutex);
  wait_for(&fixture, CALLS);
  size_t most = 0;
  for (size_t i = 0; i < CALLS; i++) {
    ck_assert_int_eq(calls[i].called, 1);
    if (i == 2)
      expect_problem(&calls[i], PROBLEM_NOT_READY, "", "cancelled");
    else
      check_answer(&calls[i], "gaussian", "sum");
    const size_t companions = calls[i].request.question.companions;
    most = companions > most ? companions : most;
  }
  ck_assert_uint_ge(most, CALLS - 3); /* the last to be read may find the queue empty */
  tear_down(&fixture);
}
END_TEST

UNIT_MAIN("attend", test_stored, test_ad_hoc, test_a_memory_that_goes_meanwhile,
          test_deferred_together, test_metrics, test_memories_that_can_not_be_had, test_shapes,
          test_limit_of_replies, test_time_that_is_over, test_answers_beyond_float32,
          test_waiting_together)
