/* The batcher: questions that wait together are computed together, with the
 * same answers to the last bit, and each keeps its own fate: a deadline, a
 * client that left, an answer beyond float32. So are those that were put off. */
#include "engine/batcher.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "unit.h"

enum { ROWS = 700, DIM = 24, ASKERS = 12, TOP = 5 };

struct fixture {
  struct workers *workers;
  struct batcher *batcher;
  attn_snapshot *snapshot;
  attn_score *score;
  attn_normalization *norm;
  atomic_int done;
};

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static float number(uint64_t *state) {
  return (float)((double)next_random(state) * 0x1p-63 - 1);
}

static void set_up(struct fixture *fixture, const char *score, const char *norm, float scale) {
  static float keys[ROWS * DIM], values[ROWS * DIM];
  uint64_t state = 7;
  for (size_t i = 0; i < ROWS * DIM; i++) {
    keys[i] = number(&state) * scale;
    values[i] = number(&state);
  }
  attn_snapshot *empty;
  *fixture = (struct fixture){.workers = workers_create(1, 100)};
  fixture->batcher = batcher_create(fixture->workers, NULL, NULL);
  ck_assert_ptr_nonnull(fixture->batcher);
  ck_assert_int_eq(attn_snapshot_create(&empty, DIM, DIM), ATTN_OK);
  ck_assert_int_eq(attn_snapshot_append(&fixture->snapshot, empty, keys, values, ROWS), ATTN_OK);
  attn_snapshot_free(empty);
  ck_assert_int_eq(attn_score_create(&fixture->score, score, NULL, 0, NULL), ATTN_OK);
  ck_assert_int_eq(attn_normalization_create(&fixture->norm, norm, NULL, 0, NULL), ATTN_OK);
}

static void tear_down(struct fixture *fixture) {
  workers_free(fixture->workers);
  batcher_free(fixture->batcher);
  attn_snapshot_free(fixture->snapshot);
  attn_score_free(fixture->score);
  attn_normalization_free(fixture->norm);
}

/* A question, and the job that asks it on the worker. */
struct asker {
  struct question question;
  struct fixture *fixture;
  float query[DIM], output[DIM], alone[DIM];
  attn_weight largest[TOP];
  size_t largest_count;
  bool left;
};

static void count_done(struct question *question) {
  atomic_fetch_add(&((struct asker *)question)->fixture->done, 1);
}

static bool has_left(const struct question *question) {
  return ((const struct asker *)question)->left;
}

static void ask(void *argument) {
  struct asker *asker = argument;
  batcher_ask(asker->fixture->batcher, &asker->question);
}

static void prepare(struct asker *asker, struct fixture *fixture, uint64_t seed) {
  *asker = (struct asker){.fixture = fixture};
  for (size_t i = 0; i < DIM; i++)
    asker->query[i] = number(&seed);
  asker->question = (struct question){.snapshot = fixture->snapshot,
                                      .request = {.queries = asker->query,
                                                  .query_count = 1,
                                                  .query_dim = DIM,
                                                  .score = fixture->score,
                                                  .normalization = fixture->norm,
                                                  .weights_mode = ATTN_WEIGHTS_TOP,
                                                  .top = TOP},
                                      .deadline = INFINITY,
                                      .abandoned = has_left,
                                      .done = count_done};
  attn_result *result = &asker->question.result;
  *result = attn_result_for(fixture->snapshot, &asker->question.request);
  result->outputs = asker->output;
  result->largest = asker->largest;
  result->largest_count = &asker->largest_count;
}

/* Holds the only worker until all have queued up, so that they meet. */
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

static void ask_together(struct fixture *fixture, struct asker *askers, size_t count) {
  struct gate gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
  ck_assert(workers_submit(fixture->workers, wait_at_gate, &gate, 0));
  for (size_t i = 0; i < count; i++)
    ck_assert(workers_submit(fixture->workers, ask, &askers[i], 0));
  pthread_mutex_lock(&gate.mutex);
  gate.open = true;
  pthread_cond_broadcast(&gate.changed);
  pthread_mutex_unlock(&gate.mutex);
  while (atomic_load(&fixture->done) < (int)count)
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void answer_alone(struct asker *asker) {
  attn_weight largest[TOP];
  size_t largest_count;
  attn_result result = asker->question.result;
  result.outputs = asker->alone;
  result.largest = largest;
  result.largest_count = &largest_count;
  ck_assert_int_eq(attn_attend(asker->fixture->snapshot, &asker->question.request, &result, NULL),
                   ATTN_OK);
  ck_assert_uint_eq(largest_count, asker->largest_count);
  for (size_t i = 0; i < largest_count; i++) {
    ck_assert_uint_eq(largest[i].row, asker->largest[i].row);
    ck_assert(largest[i].weight == asker->largest[i].weight);
  }
}

START_TEST(test_together_as_alone) {
  struct fixture fixture;
  struct asker askers[ASKERS];
  set_up(&fixture, "scaled_dot", "softmax", 1);
  for (size_t i = 0; i < ASKERS; i++)
    prepare(&askers[i], &fixture, i);
  ask_together(&fixture, askers, ASKERS);
  size_t most = 0;
  for (size_t i = 0; i < ASKERS; i++) {
    ck_assert_int_eq(askers[i].question.status, ATTN_OK);
    most = askers[i].question.companions > most ? askers[i].question.companions : most;
    answer_alone(&askers[i]);
    ck_assert_mem_eq(askers[i].alone, askers[i].output, sizeof askers[i].output);
  }
  ck_assert_uint_ge(most, ASKERS - 2); /* the last to be read may find the queue empty */
  tear_down(&fixture);
}
END_TEST

START_TEST(test_unlike_stay_apart) {
  struct fixture fixture;
  struct asker askers[2];
  set_up(&fixture, "dot", "softmax", 1);
  prepare(&askers[0], &fixture, 1);
  prepare(&askers[1], &fixture, 2);
  attn_score *other;
  ck_assert_int_eq(attn_score_create(&other, "cosine", NULL, 0, NULL), ATTN_OK);
  askers[1].question.request.score = other;
  ask_together(&fixture, askers, 2);
  for (size_t i = 0; i < 2; i++) {
    ck_assert_int_eq(askers[i].question.status, ATTN_OK);
    ck_assert_uint_eq(askers[i].question.companions, 0);
  }
  tear_down(&fixture);
  attn_score_free(other);
}
END_TEST

START_TEST(test_each_its_own_fate) {
  struct fixture fixture;
  struct asker askers[ASKERS];
  set_up(&fixture, "scaled_dot", "softmax", 1);
  for (size_t i = 0; i < ASKERS; i++)
    prepare(&askers[i], &fixture, i);
  askers[1].question.deadline = seconds_now() - 1;
  askers[2].left = true;
  ask_together(&fixture, askers, ASKERS);
  ck_assert_int_eq(askers[1].question.status, ATTN_CANCELLED);
  ck_assert(askers[1].question.late);
  ck_assert_int_eq(askers[2].question.status, ATTN_CANCELLED);
  ck_assert(!askers[2].question.late);
  for (size_t i = 3; i < ASKERS; i++)
    ck_assert_int_eq(askers[i].question.status, ATTN_OK);
  tear_down(&fixture);
}
END_TEST

START_TEST(test_one_fault_does_not_spoil_the_others) {
  struct fixture fixture;
  struct asker askers[ASKERS];
  set_up(&fixture, "dot", "none", 1e18f);
  for (size_t i = 0; i < ASKERS; i++)
    prepare(&askers[i], &fixture, i);
  for (size_t i = 0; i < DIM; i++)
    askers[4].query[i] = 1e30f;
  ask_together(&fixture, askers, ASKERS);
  for (size_t i = 0; i < ASKERS; i++)
    ck_assert_int_eq(askers[i].question.status, i == 4 ? ATTN_NOT_REPRESENTABLE : ATTN_OK);
  tear_down(&fixture);
}
END_TEST

START_TEST(test_answer_here) {
  struct fixture fixture;
  struct asker asker;
  set_up(&fixture, "gaussian", "sum", 1);
  prepare(&asker, &fixture, 3);
  batcher_answer_here(fixture.batcher, &asker.question);
  ck_assert_int_eq(atomic_load(&fixture.done), 1);
  ck_assert_int_eq(asker.question.status, ATTN_OK);
  answer_alone(&asker);
  ck_assert_mem_eq(asker.alone, asker.output, sizeof asker.output);
  tear_down(&fixture);
}
END_TEST

/* Two kinds in turn, each of which is a batch. */
START_TEST(test_put_off_as_alone) {
  struct fixture fixture;
  struct asker askers[ASKERS];
  struct question *list = NULL;
  attn_score *other;
  set_up(&fixture, "dot", "softmax", 1);
  ck_assert_int_eq(attn_score_create(&other, "gaussian", NULL, 0, NULL), ATTN_OK);
  for (size_t i = 0; i < ASKERS; i++) {
    prepare(&askers[i], &fixture, i);
    if (i % 2) askers[i].question.request.score = other;
    batcher_put_off(fixture.batcher, &list, &askers[i].question);
  }
  ck_assert_int_eq(atomic_load(&fixture.done), 0);
  batcher_answer_put_off(fixture.batcher, &list);
  ck_assert_ptr_null(list);
  ck_assert_int_eq(atomic_load(&fixture.done), ASKERS);
  for (size_t i = 0; i < ASKERS; i++) {
    ck_assert_int_eq(askers[i].question.status, ATTN_OK);
    ck_assert_uint_eq(askers[i].question.companions, ASKERS / 2 - 1);
    answer_alone(&askers[i]);
    ck_assert_mem_eq(askers[i].alone, askers[i].output, sizeof askers[i].output);
  }
  batcher_answer_put_off(fixture.batcher, &list);
  ck_assert_int_eq(atomic_load(&fixture.done), ASKERS);
  tear_down(&fixture);
  attn_score_free(other);
}
END_TEST

START_TEST(test_put_off_each_its_own_fate) {
  struct fixture fixture;
  struct asker askers[ASKERS];
  struct question *list = NULL;
  set_up(&fixture, "dot", "none", 1e18f);
  for (size_t i = 0; i < ASKERS; i++) {
    prepare(&askers[i], &fixture, i);
    batcher_put_off(fixture.batcher, &list, &askers[i].question);
  }
  for (size_t i = 0; i < DIM; i++)
    askers[4].query[i] = 1e30f;
  askers[7].question.deadline = seconds_now() - 1;
  batcher_answer_put_off(fixture.batcher, &list);
  ck_assert_int_eq(atomic_load(&fixture.done), ASKERS);
  for (size_t i = 0; i < ASKERS; i++)
    ck_assert_int_eq(askers[i].question.status, i == 4   ? ATTN_NOT_REPRESENTABLE
                                                : i == 7 ? ATTN_CANCELLED
                                                         : ATTN_OK);
  ck_assert(askers[7].question.late);
  tear_down(&fixture);
}
END_TEST

/* So that the first one doesn't wait for any number of others. */
START_TEST(test_put_off_not_for_ever) {
  enum { MANY = 200 };
  struct fixture fixture;
  static struct asker askers[MANY];
  struct question *list = NULL;
  set_up(&fixture, "dot", "softmax", 1);
  int answered = 0, least = MANY;
  for (int i = 0; i < MANY; i++) {
    prepare(&askers[i], &fixture, (uint64_t)i);
    batcher_put_off(fixture.batcher, &list, &askers[i].question);
    if (atomic_load(&fixture.done) == answered) continue;
    answered = atomic_load(&fixture.done);
    ck_assert_int_eq(answered, i + 1);
    if (i < least) least = i;
  }
  ck_assert_int_lt(least, 64);
  batcher_answer_put_off(fixture.batcher, &list);
  ck_assert_int_eq(atomic_load(&fixture.done), MANY);
  tear_down(&fixture);
}
END_TEST

UNIT_MAIN("batcher", test_put_off_as_alone, test_put_off_each_its_own_fate,
          test_put_off_not_for_ever, test_together_as_alone, test_unlike_stay_apart,
          test_each_its_own_fate, test_one_fault_does_not_spoil_the_others, test_answer_here)
