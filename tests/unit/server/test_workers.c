/* The worker pool: every job runs once, the queue is bounded, slices are shared
 * out and none is lost or done twice, whoever helps. */
#include "engine/workers.h"

#include <pthread.h>
#include <stdatomic.h>

#include "unit.h"

static void count_up(void *argument) {
  atomic_fetch_add((atomic_int *)argument, 1);
}

START_TEST(test_every_job_runs_once) {
  atomic_int done = 0;
  struct workers *workers = workers_create(3, 100);
  ck_assert_ptr_nonnull(workers);
  int accepted = 0;
  for (int i = 0; i < 5000; i++)
    accepted += workers_submit(workers, count_up, &done, 1e-3);
  workers_free(workers);
  ck_assert_int_eq(atomic_load(&done), accepted);
  ck_assert_int_gt(accepted, 0);
}
END_TEST

/* A worker that is held until the test lets it go. */
struct gate {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  bool entered, open;
};

static void wait_at_gate(void *argument) {
  struct gate *gate = argument;
  pthread_mutex_lock(&gate->mutex);
  gate->entered = true;
  pthread_cond_broadcast(&gate->changed);
  while (!gate->open)
    pthread_cond_wait(&gate->changed, &gate->mutex);
  pthread_mutex_unlock(&gate->mutex);
}

START_TEST(test_queue_is_bounded) {
  struct gate gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, false};
  atomic_int done = 0;
  struct workers *workers = workers_create(1, 4);
  ck_assert(workers_submit(workers, wait_at_gate, &gate, 1e-3));
  pthread_mutex_lock(&gate.mutex);
  while (!gate.entered)
    pthread_cond_wait(&gate.changed, &gate.mutex);
  pthread_mutex_unlock(&gate.mutex);

  for (int i = 0; i < 4; i++)
    ck_assert(workers_submit(workers, count_up, &done, 1e-3));
  ck_assert(!workers_submit(workers, count_up, &done, 1e-3));
  ck_assert_uint_eq(workers_queue_length(workers), 4);

  pthread_mutex_lock(&gate.mutex);
  gate.open = true;
  pthread_cond_broadcast(&gate.changed);
  pthread_mutex_unlock(&gate.mutex);
  workers_free(workers);
  ck_assert_int_eq(atomic_load(&done), 4);
}
END_TEST

enum { SLICES = 200, JOBS = 50 };

struct sliced {
  struct workers *workers;
  atomic_int runs[SLICES];
  atomic_int *finished;
};

static void slice(void *argument, size_t index) {
  atomic_fetch_add(&((struct sliced *)argument)->runs[index], 1);
}

static void sliced_job(void *argument) {
  struct sliced *sliced = argument;
  const attn_pool pool = workers_pool(sliced->workers);
  pool.run(pool.context, SLICES, slice, sliced);
  for (size_t i = 0; i < SLICES; i++)
    if (atomic_load(&sliced->runs[i]) != 1) return;
  atomic_fetch_add(sliced->finished, 1);
}

START_TEST(test_slices_run_once) {
  for (unsigned threads = 1; threads <= 5; threads++) {
    atomic_int finished = 0;
    struct workers *workers = workers_create(threads, JOBS);
    struct sliced *sliced = calloc(JOBS, sizeof *sliced);
    for (int i = 0; i < JOBS; i++) {
      sliced[i].workers = workers;
      sliced[i].finished = &finished;
      ck_assert(workers_submit(workers, sliced_job, &sliced[i], 1e-3));
    }
    workers_free(workers);
    ck_assert_int_eq(atomic_load(&finished), JOBS);
    free(sliced);
  }
}
END_TEST

START_TEST(test_no_slices) {
  struct workers *workers = workers_create(2, 4);
  const attn_pool pool = workers_pool(workers);
  ck_assert_uint_eq(pool.workers, 2);
  pool.run(pool.context, 0, slice, NULL);
  workers_free(workers);
  workers_free(NULL);
}
END_TEST

UNIT_MAIN("workers", test_every_job_runs_once, test_queue_is_bounded, test_slices_run_once,
          test_no_slices)
