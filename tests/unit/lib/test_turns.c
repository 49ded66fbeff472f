/* Taking turns: each step goes through each run once and in order, whoever takes it; nobody
 * goes ahead while a step that is free is behind; whoever comes first does the work of those
 * who don't come. */
#include "random_trial.h"

#include <pthread.h>

#include "turns.h"

/* ---- Turns ---- */

enum { STEPS = 13, RUNS = 200, THREADS = 4 };

typedef struct table {
  struct attn_turns turns;
  size_t done[STEPS]; /* owned by whoever has the step */
  unsigned char marks[STEPS][RUNS];
  atomic_size_t taken, out_of_order, ended, missing;
} table;

typedef struct taker {
  table *at;
  size_t home;
  pthread_t thread;
} taker;

static void *take_turns(void *argument) {
  const taker *mine = argument;
  table *at = mine->at;
  struct attn_turn turn = {0};
  while (attn_turns_take(&at->turns, mine->home, &turn)) {
    atomic_fetch_add(&at->taken, 1);
    attn_turns_wait(&at->turns, &turn);
    if (at->done[turn.step]++ != turn.run) atomic_fetch_add(&at->out_of_order, 1);
    at->marks[turn.step][turn.run]++;
    if (!attn_turns_give_back(&at->turns, &turn)) continue;
    atomic_fetch_add(&at->ended, 1);
    for (size_t run = 0; run < RUNS; run++)
      if (at->marks[turn.step][run] != 1) atomic_fetch_add(&at->missing, 1);
  }
  return NULL;
}

static void check_each_once(size_t steps, size_t together) {
  struct attn_progress progress[STEPS] = {{0}};
  table at = {.turns = {steps, RUNS, together, progress}};
  taker takers[THREADS];
  for (size_t i = 0; i < THREADS; i++) {
    takers[i] = (taker){.at = &at, .home = i * steps / THREADS};
    ck_assert_int_eq(pthread_create(&takers[i].thread, NULL, take_turns, &takers[i]), 0);
  }
  for (size_t i = 0; i < THREADS; i++)
    pthread_join(takers[i].thread, NULL);
  ck_assert_uint_eq(at.taken, steps * RUNS);
  ck_assert_uint_eq(at.out_of_order, 0);
  ck_assert_uint_eq(at.ended, steps);
  ck_assert_uint_eq(at.missing, 0);
}

START_TEST(test_each_once_and_in_order) {
  for (size_t together = 1; together <= 3; together++) {
    check_each_once(STEPS, together);
    check_each_once(1, together);
  }
}
END_TEST

START_TEST(test_the_last_ones_first) {
  struct attn_progress progress[3] = {{0}};
  struct attn_turns turns = {3, 2, 1, progress};
  struct attn_turn a = {0}, b = {0}, c = {0}, d = {0};
  ck_assert(attn_turns_take(&turns, 1, &a) && a.step == 1 && a.run == 0);
  ck_assert(attn_turns_take(&turns, 1, &b) && b.step == 2 && b.run == 0);
  attn_turns_give_back(&turns, &b);
  /* Step 0 is behind step 2, which is nearer. */
  ck_assert(attn_turns_take(&turns, 1, &b) && b.step == 0 && b.run == 0);
  ck_assert(attn_turns_take(&turns, 1, &c) && c.step == 2 && c.run == 1);
  ck_assert(!attn_turns_take(&turns, 1, &d));
  attn_turns_give_back(&turns, &c);
  ck_assert(!attn_turns_take(&turns, 1, &d));
  attn_turns_give_back(&turns, &a);
  ck_assert(attn_turns_take(&turns, 0, &d) && d.step == 1 && d.run == 1);
  attn_turns_give_back(&turns, &d);
  attn_turns_give_back(&turns, &b);
  ck_assert(attn_turns_take(&turns, 2, &b) && b.step == 0 && b.run == 1);
  attn_turns_give_back(&turns, &b);
  ck_assert(!attn_turns_take(&turns, 0, &a));
}
END_TEST

/* Only where all steps are with somebody is one shared, and by no more than may be. */
START_TEST(test_together) {
  struct attn_progress progress[2] = {{0}};
  struct attn_turns turns = {2, 3, 2, progress};
  struct attn_turn a = {0}, b = {0}, c = {0}, d = {0};
  ck_assert(attn_turns_take(&turns, 0, &a) && a.step == 0 && a.run == 0);
  ck_assert(attn_turns_take(&turns, 0, &b) && b.step == 1 && b.run == 0);
  ck_assert(attn_turns_take(&turns, 1, &c) && c.step == 1 && c.run == 1);
  ck_assert(attn_turns_take(&turns, 1, &d) && d.step == 0 && d.run == 1);
  struct attn_turn none = {0};
  ck_assert(!attn_turns_take(&turns, 0, &none));
  attn_turns_give_back(&turns, &b);
  attn_turns_give_back(&turns, &c);
  ck_assert(attn_turns_take(&turns, 0, &b) && b.step == 1 && b.run == 2);
  ck_assert(!attn_turns_take(&turns, 0, &none));
  attn_turns_give_back(&turns, &a);
  ck_assert(attn_turns_take(&turns, 1, &a) && a.step == 0 && a.run == 2);
  ck_assert(!attn_turns_take(&turns, 1, &none));
}
END_TEST

/* ---- In a pass ---- */

/* Runs one task after the other, and counts the tiles that each meets. */
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
  Suite *suite = suite_create("turns");
  add_test(suite, "each once and in order", test_each_once_and_in_order);
  add_test(suite, "the last ones first", test_the_last_ones_first);
  add_test(suite, "together", test_together);
  add_test(suite, "the first one does it all", test_the_first_one_does_it_all);
  return run_suite(suite);
}
