/* The schedule of a split: each query block goes through each key block once and in order,
 * whichever worker claims it; no query block gets ahead while one that is free is behind; the
 * first worker does the work of those that don't come. */
#include "random_trial.h"

#include <pthread.h>

#include "attend/schedule.h"

/* ---- Work items ---- */

enum { QUERY_BLOCKS = 13, KEY_BLOCKS = 200, THREADS = 4 };

typedef struct table {
  struct attn_schedule schedule;
  size_t done[QUERY_BLOCKS]; /* owned by the worker of the query block */
  unsigned char marks[QUERY_BLOCKS][KEY_BLOCKS];
  atomic_size_t claimed, out_of_order, ended, missing;
} table;

typedef struct worker {
  table *at;
  size_t preferred;
  pthread_t thread;
} worker;

static void *work(void *argument) {
  const worker *mine = argument;
  table *at = mine->at;
  struct attn_work_item item = {0};
  while (attn_schedule_claim(&at->schedule, mine->preferred, &item)) {
    atomic_fetch_add(&at->claimed, 1);
    attn_schedule_wait(&at->schedule, &item);
    if (at->done[item.query_block]++ != item.key_block) atomic_fetch_add(&at->out_of_order, 1);
    at->marks[item.query_block][item.key_block]++;
    if (!attn_schedule_complete(&at->schedule, &item)) continue;
    atomic_fetch_add(&at->ended, 1);
    for (size_t key_block = 0; key_block < KEY_BLOCKS; key_block++)
      if (at->marks[item.query_block][key_block] != 1) atomic_fetch_add(&at->missing, 1);
  }
  return NULL;
}

static void check_each_once(size_t query_blocks, size_t max_workers) {
  struct attn_progress progress[QUERY_BLOCKS] = {{0}};
  table at = {.schedule = {query_blocks, KEY_BLOCKS, max_workers, progress}};
  worker workers[THREADS];
  for (size_t i = 0; i < THREADS; i++) {
    workers[i] = (worker){.at = &at, .preferred = i * query_blocks / THREADS};
    ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
  }
  for (size_t i = 0; i < THREADS; i++)
    pthread_join(workers[i].thread, NULL);
  ck_assert_uint_eq(at.claimed, query_blocks * KEY_BLOCKS);
  ck_assert_uint_eq(at.out_of_order, 0);
  ck_assert_uint_eq(at.ended, query_blocks);
  ck_assert_uint_eq(at.missing, 0);
}

START_TEST(test_each_once_and_in_order) {
  for (size_t max_workers = 1; max_workers <= 3; max_workers++) {
    check_each_once(QUERY_BLOCKS, max_workers);
    check_each_once(1, max_workers);
  }
}
END_TEST

START_TEST(test_the_last_ones_first) {
  struct attn_progress progress[3] = {{0}};
  struct attn_schedule schedule = {3, 2, 1, progress};
  struct attn_work_item a = {0}, b = {0}, c = {0}, d = {0};
  ck_assert(attn_schedule_claim(&schedule, 1, &a) && a.query_block == 1 && a.key_block == 0);
  ck_assert(attn_schedule_claim(&schedule, 1, &b) && b.query_block == 2 && b.key_block == 0);
  attn_schedule_complete(&schedule, &b);
  /* Query block 0 is behind 2, which is the next one from 1 on. */
  ck_assert(attn_schedule_claim(&schedule, 1, &b) && b.query_block == 0 && b.key_block == 0);
  ck_assert(attn_schedule_claim(&schedule, 1, &c) && c.query_block == 2 && c.key_block == 1);
  ck_assert(!attn_schedule_claim(&schedule, 1, &d));
  attn_schedule_complete(&schedule, &c);
  ck_assert(!attn_schedule_claim(&schedule, 1, &d));
  attn_schedule_complete(&schedule, &a);
  ck_assert(attn_schedule_claim(&schedule, 0, &d) && d.query_block == 1 && d.key_block == 1);
  attn_schedule_complete(&schedule, &d);
  attn_schedule_complete(&schedule, &b);
  ck_assert(attn_schedule_claim(&schedule, 2, &b) && b.query_block == 0 && b.key_block == 1);
  attn_schedule_complete(&schedule, &b);
  ck_assert(!attn_schedule_claim(&schedule, 0, &a));
}
END_TEST

/* A query block gets a second worker only if all have one, and never more than the maximum. */
START_TEST(test_more_workers) {
  struct attn_progress progress[2] = {{0}};
  struct attn_schedule schedule = {2, 3, 2, progress};
  struct attn_work_item a = {0}, b = {0}, c = {0}, d = {0};
  ck_assert(attn_schedule_claim(&schedule, 0, &a) && a.query_block == 0 && a.key_block == 0);
  ck_assert(attn_schedule_claim(&schedule, 0, &b) && b.query_block == 1 && b.key_block == 0);
  ck_assert(attn_schedule_claim(&schedule, 1, &c) && c.query_block == 1 && c.key_block == 1);
  ck_assert(attn_schedule_claim(&schedule, 1, &d) && d.query_block == 0 && d.key_block == 1);
  struct attn_work_item none = {0};
  ck_assert(!attn_schedule_claim(&schedule, 0, &none));
  attn_schedule_complete(&schedule, &b);
  attn_schedule_complete(&schedule, &c);
  ck_assert(attn_schedule_claim(&schedule, 0, &b) && b.query_block == 1 && b.key_block == 2);
  ck_assert(!attn_schedule_claim(&schedule, 0, &none));
  attn_schedule_complete(&schedule, &a);
  ck_assert(attn_schedule_claim(&schedule, 1, &a) && a.query_block == 0 && a.key_block == 2);
  ck_assert(!attn_schedule_claim(&schedule, 1, &none));
}
END_TEST

/* ---- In a pass ---- */

/* Runs one task after the other, and counts the key blocks of each. */
typedef struct lone_worker {
  attn_pool pool;
  bool backwards;
  size_t task, tiles[8];
} lone_worker;

static void run_alone(void *context, size_t count, void (*task)(void *, size_t), void *argument) {
  lone_worker *alone = context;
  for (size_t i = 0; i < count; i++) {
    alone->task = i;
    task(argument, alone->backwards ? count - 1 - i : i);
  }
}

static void count_tile(void *context) {
  lone_worker *alone = context;
  alone->tiles[alone->task]++;
}

START_TEST(test_the_first_one_does_it_all) {
  static const shape shapes[] = {{60000, 16, 8, 40, 0}, {900, 32, 32, 100, 0}};
  for (size_t i = 0; i < 4; i++) {
    lone_worker alone = {.backwards = i / 2 == 1};
    alone.pool =
        (attn_pool){.workers = 4, .run = run_alone, .pause = count_tile, .context = &alone};
    trial t = trial_random(40000 + i, shapes[i % 2], "dot", "softmax");
    trial_prepare(&t);
    trial_check(&t, (asking){ATTN_WEIGHTS_NONE, 0, &alone.pool});
    ck_assert_uint_gt(alone.tiles[0], 3);
    for (size_t task = 1; task < 8; task++)
      ck_assert_uint_eq(alone.tiles[task], 0);
    trial_free(&t);
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("schedule");
  add_test(suite, "each once and in order", test_each_once_and_in_order);
  add_test(suite, "the last ones first", test_the_last_ones_first);
  add_test(suite, "more workers", test_more_workers);
  add_test(suite, "the first one does it all", test_the_first_one_does_it_all);
  return run_suite(suite);
}
