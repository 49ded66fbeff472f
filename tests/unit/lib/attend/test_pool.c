/* The caller's pool of threads and buffers: the answer is within the bound
 * whatever the number of workers and the order of the tasks, and whatever the
 * buffers held before; several callers may share a pool, a request can be
 * cancelled at any point, and every buffer is freed.
 *
 * The pool below is a plain one: a queue of jobs, each a counter of tasks that
 * were handed out. It hands them out in a scrambled order on purpose. */
#include "random_trial.h"

#include <pthread.h>
#include <stdatomic.h>

/* ---- A pool ---- */

/* `lock` guards everything below it, in the crew and in its jobs. */
typedef struct job {
  size_t count, given, finished, step, offset;
  void (*task)(void *argument, size_t index);
  void *argument;
  struct job *next;
} job;

typedef struct crew {
  attn_pool pool;
  pthread_t threads[8];
  atomic_size_t tasks_run, misuses, buffers, bytes_out;
  pthread_mutex_t lock;
  pthread_cond_t work, finished;
  job *jobs;
  bool closing;
  uint64_t scramble;
} crew;

/* Task number `n` of the order in which this job's are handed out. `step` has
 * no divisor in common with `count`, so that each comes exactly once. */
static size_t task_index(const job *j, size_t n) {
  return (j->offset + n * j->step) % j->count;
}

/* Runs one task with the lock released. False where none is left. */
static bool work_once(crew *c) {
  job *j = c->jobs;
  while (j != NULL && j->given == j->count)
    j = j->next;
  if (j == NULL) return false;
  const size_t index = task_index(j, j->given++);
  pthread_mutex_unlock(&c->lock);
  j->task(j->argument, index);
  atomic_fetch_add(&c->tasks_run, 1);
  pthread_mutex_lock(&c->lock);
  if (++j->finished == j->count) pthread_cond_broadcast(&c->finished);
  return true;
}

static void *work_on(void *argument) {
  crew *c = argument;
  pthread_mutex_lock(&c->lock);
  while (!c->closing)
    if (!work_once(c)) pthread_cond_wait(&c->work, &c->lock);
  pthread_mutex_unlock(&c->lock);
  return NULL;
}

static size_t common_divisor(size_t a, size_t b) {
  while (b > 0) {
    const size_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

static void crew_run(void *context, size_t count, void (*task)(void *, size_t), void *argument) {
  crew *c = context;
  if (count == 0 || task == NULL) {
    atomic_fetch_add(&c->misuses, count > 0);
    return;
  }
  job mine = {.count = count, .task = task, .argument = argument};
  pthread_mutex_lock(&c->lock);
  rng r = {c->scramble++};
  mine.offset = rng_between(&r, 0, count - 1);
  mine.step = rng_between(&r, 1, count);
  while (common_divisor(mine.step, count) != 1)
    mine.step++;
  mine.next = c->jobs;
  c->jobs = &mine;
  pthread_cond_broadcast(&c->work);
  while (mine.finished < count)
    pthread_cond_wait(&c->finished, &c->lock);
  job **link = &c->jobs;
  while (*link != &mine)
    link = &(*link)->next;
  *link = mine.next;
  pthread_mutex_unlock(&c->lock);
}

/* Full of NaN, so that nothing can be taken for cleared. */
static void *crew_alloc_buffer(void *context, size_t bytes) {
  crew *c = context;
  if (bytes < 1 << 14 || (bytes & (bytes - 1)) != 0) atomic_fetch_add(&c->misuses, 1);
  void *buffer = aligned_alloc(64, bytes);
  if (buffer == NULL) abort();
  memset(buffer, 0xff, bytes);
  atomic_fetch_add(&c->buffers, 1);
  atomic_fetch_add(&c->bytes_out, bytes);
  return buffer;
}

static void crew_free_buffer(void *context, void *buffer, size_t bytes) {
  crew *c = context;
  atomic_fetch_sub(&c->bytes_out, bytes);
  free(buffer);
}

static crew *crew_new(unsigned workers) {
  crew *c = must_alloc(1, sizeof *c);
  c->pool = (attn_pool){.workers = workers,
                        .run = crew_run,
                        .alloc = crew_alloc_buffer,
                        .free = crew_free_buffer,
                        .context = c};
  c->scramble = test_seed();
  pthread_mutex_init(&c->lock, NULL);
  pthread_cond_init(&c->work, NULL);
  pthread_cond_init(&c->finished, NULL);
  for (unsigned i = 0; i < workers; i++)
    if (pthread_create(&c->threads[i], NULL, work_on, c) != 0) abort();
  return c;
}

static void crew_free(crew *c) {
  ck_assert_uint_gt(atomic_load(&c->buffers), 0);
  ck_assert_uint_eq(atomic_load(&c->bytes_out), 0);
  pthread_mutex_lock(&c->lock);
  c->closing = true;
  pthread_cond_broadcast(&c->work);
  pthread_mutex_unlock(&c->lock);
  for (unsigned i = 0; i < c->pool.workers; i++)
    pthread_join(c->threads[i], NULL);
  pthread_cond_destroy(&c->work);
  pthread_cond_destroy(&c->finished);
  pthread_mutex_destroy(&c->lock);
  free(c);
}

/* ---- Answers ---- */

static const unsigned worker_counts[] = {1, 2, 3, 7};

/* Few queries over many rows and many over few: cut along either. */
static const shape shapes[] = {{5000, 8, 3, 1, 0},  {3000, 20, 2, 7, 0}, {40, 6, 30, 260, 0},
                               {1100, 5, 1, 65, 0}, {1, 4, 4, 90, 0},    {700, 33, 17, 30, 0}};

START_TEST(test_any_number_of_workers) {
  crew *c = crew_new(worker_counts[_i]);
  const size_t count = sizeof shapes / sizeof *shapes;
  const size_t rounds = test_rounds(1) * SCORE_COUNT * NORMALIZATION_COUNT;
  for (size_t i = 0; i < rounds; i++) {
    const uint64_t index = 10000 + (uint64_t)_i * 100000 + i;
    rng r = rng_for_case(index + 50000);
    shape of = shapes[rng_between(&r, 0, count - 1)];
    const char *score = score_names[i % SCORE_COUNT];
    if (takes_other_query_dim(score)) of = (shape){600, 5, 3, 20, 4};
    trial t =
        trial_random(index, of, score, normalization_names[i / SCORE_COUNT % NORMALIZATION_COUNT]);
    trial_prepare(&t);
    snprintf(t.note, sizeof t.note, "[%u workers]", c->pool.workers);
    const attn_weights_mode mode = (attn_weights_mode)(i % 3);
    trial_check(&t, (asking){mode, rng_between(&r, 1, 9), &c->pool});
    trial_free(&t);
  }
  ck_assert_uint_eq(atomic_load(&c->misuses), 0);
  crew_free(c);
}
END_TEST

/* The workers must be put to use where there is enough to do. */
START_TEST(test_large_requests_are_cut) {
  crew *c = crew_new(3);
  trial t = trial_random(1, (shape){60000, 16, 8, 4, 0}, "dot", "softmax");
  trial_prepare(&t);
  trial_check(&t, (asking){ATTN_WEIGHTS_NONE, 0, &c->pool});
  ck_assert_uint_gt(atomic_load(&c->tasks_run), 1);
  trial_free(&t);
  crew_free(c);
}
END_TEST

/* ---- Cancelling ---- */

typedef struct countdown {
  atomic_long calls_left;
  atomic_long calls;
} countdown;

static bool is_over(void *context) {
  countdown *left = context;
  atomic_fetch_add(&left->calls, 1);
  return atomic_fetch_sub(&left->calls_left, 1) <= 1;
}

/* Cancels at the n-th question. Returns how often was asked. */
static long cancel_at(const trial *t, attn_weights_mode mode, long n, const attn_pool *pool) {
  const asking how = {mode, 3, pool};
  answer a = answer_new(t, &how);
  countdown left;
  atomic_init(&left.calls_left, n);
  atomic_init(&left.calls, 0);
  attn_request request = trial_request(t, &how);
  attn_result result = trial_result(t, &request, &a);
  request.cancelled = is_over;
  request.cancel_context = &left;
  const attn_status status = attn_attend(t->snapshot, &request, &result, pool);
  const long calls = atomic_load(&left.calls);
  const attn_status expected = calls >= n ? ATTN_CANCELLED : ATTN_OK;
  if (status != expected)
    TRIAL_FAIL(t, "cancelled at %ld of %ld calls: %s", n, calls, attn_status_text(status));
  answer_free(&a);
  return calls;
}

START_TEST(test_cancelling) {
  static const char *const pairs[][2] = {{"dot", "softmax"},        {"gaussian", "sum"},
                                         {"euclidean", "entmax15"}, {"cosine", "hardmax"},
                                         {"triangular", "sigmoid"}, {"dot", "sum"}};
  crew *c = crew_new(3);
  for (size_t i = 0; i < 6 * 3 * 2; i++) {
    const attn_pool *pool = i % 2 ? &c->pool : NULL;
    const attn_weights_mode mode = (attn_weights_mode)(i / 2 % 3);
    trial t = trial_random(20000 + i, (shape){6000, 8, 4, 6, 0}, pairs[i / 6][0], pairs[i / 6][1]);
    trial_prepare(&t);
    const long calls = cancel_at(&t, mode, 1000000000, pool);
    if (calls == 0) TRIAL_FAIL(&t, "never asked whether it was cancelled");
    for (long n = 1; n <= calls + 2; n += n < 4 ? 1 : calls / 4 + 1)
      cancel_at(&t, mode, n, pool);
    trial_check(&t, (asking){mode, 3, pool});
    trial_free(&t);
  }
  crew_free(c);
}
END_TEST

/* ---- Several callers ---- */

typedef struct caller {
  pthread_t thread;
  const trial *t;
  const attn_pool *pool;
  attn_status status;
  answer a;
  attn_weights_mode mode;
} caller;

static void *call(void *argument) {
  caller *me = argument;
  const asking how = {me->mode, 3, me->pool};
  for (size_t i = 0; i < 5 && me->status == ATTN_OK; i++)
    me->status = trial_attend(me->t, &how, &me->a);
  return NULL;
}

/* Judged after all have come back: only the main thread may fail a test. */
START_TEST(test_several_callers) {
  enum { CALLERS = 6 };
  static const char *const pairs[][2] = {
      {"dot", "softmax"}, {"gaussian", "sum"}, {"euclidean", "sparsemax"}, {"cosine", "hardmax"}};
  crew *c = crew_new(3);
  for (size_t i = 0; i < 4; i++) {
    trial t = trial_random(30000 + i, (shape){9000, 12, 5, 10, 0}, pairs[i][0], pairs[i][1]);
    trial_prepare(&t);
    caller callers[CALLERS];
    for (size_t n = 0; n < CALLERS; n++) {
      callers[n] = (caller){.t = &t,
                            .pool = n % 2 ? &c->pool : NULL,
                            .mode = (attn_weights_mode)(n % 3),
                            .status = ATTN_OK};
      callers[n].a = answer_new(&t, &(asking){callers[n].mode, 3, NULL});
      ck_assert_int_eq(pthread_create(&callers[n].thread, NULL, call, &callers[n]), 0);
    }
    for (size_t n = 0; n < CALLERS; n++)
      pthread_join(callers[n].thread, NULL);
    for (size_t n = 0; n < CALLERS; n++) {
      CHECK_STATUS(ATTN_OK, callers[n].status);
      trial_judge(&t, &callers[n].a);
      answer_free(&callers[n].a);
    }
    trial_free(&t);
  }
  crew_free(c);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("pool");
  TCase *tcase = tcase_create("workers");
  tcase_set_timeout(tcase, 0);
  tcase_add_loop_test(tcase, test_any_number_of_workers, 0, 4);
  suite_add_tcase(suite, tcase);
  add_test(suite, "large requests", test_large_requests_are_cut);
  add_test(suite, "cancelling", test_cancelling);
  add_test(suite, "several callers", test_several_callers);
  return run_suite(suite);
}
