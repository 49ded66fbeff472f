/* Turns: which worker takes which queries through which rows, next.
 *
 * What a query's state is given is added up in the order of the rows; in which order
 * different queries meet them, and on which worker, changes nothing. So the queries go in
 * steps, each step has a count of the runs of rows that were taken, and a worker takes
 * the next one of a step that nobody has and that has the fewest: all steps stay on about
 * the same rows, which are then in the cache. Where every step that is left is with
 * somebody, the next run of one is computed at the same time, and waits with what it
 * adds until those before it have added theirs. A worker that is done with its own part
 * takes turns in others; so all end at about the same time though one was held up, and
 * the answer is the same to the bit.
 *
 * Nobody may hold a turn while it waits for anything but that, or lets others in: whoever
 * has the next one would wait for it, and may be what it waits for.
 *
 * Rejected: a fixed share of the queries or rows for each worker, where in large batches
 * the first to end waited for 4 % of the time on a machine with neighbours; tasks that are
 * finer, whose states have to be merged; a queue, which would need a lock; to leave a step
 * to the one who has it, which cost single queries, being one step, 3 to 6 % of their time.
 *
 * Threads: `progress` is all there is. Whoever has the first turn of a step that is not
 * over owns its queries' state of the part; attn_turns_wait() acquires what giving back
 * the one before released, and giving back the last one what all the others did. */
#ifndef ATTN_TURNS_H
#define ATTN_TURNS_H

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Runs of a step, in order: taken by somebody, and over. */
struct attn_progress {
  atomic_size_t taken, over;
};

/* Of one part. */
struct attn_turns {
  size_t steps, runs;
  size_t together; /* how many may have turns of one step */
  struct attn_progress *progress;
};

struct attn_turn {
  size_t step, run;
};

/* False where nothing is left, or as many as may be are at it. Of steps that are equally far
 * behind the first from `home` on is taken, so that workers with homes of their own mostly
 * keep to the same queries. `turn` is the worker's last one, or zeroed, and becomes its next. */
static inline bool attn_turns_take(struct attn_turns *turns, size_t home, struct attn_turn *turn) {
  for (;;) {
    size_t fewest = SIZE_MAX, least = turns->together, place = 0;
    for (size_t i = 0, s = home; i < turns->steps; i++, s = s + 1 < turns->steps ? s + 1 : 0) {
      const struct attn_progress *step = &turns->progress[s];
      /* in this order, so that the difference is at least what it was */
      const size_t over = atomic_load_explicit(&step->over, memory_order_acquire);
      const size_t taken = atomic_load_explicit(&step->taken, memory_order_relaxed);
      const size_t busy = taken - over;
      if (taken == turns->runs || busy >= turns->together) continue;
      if (busy > least || (busy == least && taken >= fewest)) continue;
      fewest = taken;
      least = busy;
      place = s;
      if (busy == 0 && taken <= turn->run) break;
    }
    if (fewest == SIZE_MAX) return false;
    if (atomic_compare_exchange_strong_explicit(&turns->progress[place].taken, &fewest, fewest + 1,
                                                memory_order_relaxed, memory_order_relaxed)) {
      *turn = (struct attn_turn){place, fewest};
      return true;
    }
  }
}

/* Until the turns of the step before this one are over; then its state is this one's. */
static inline void attn_turns_wait(const struct attn_turns *turns, const struct attn_turn *turn) {
  const atomic_size_t *over = &turns->progress[turn->step].over;
  while (atomic_load_explicit(over, memory_order_acquire) != turn->run)
    sched_yield();
}

/* After attn_turns_wait(). True for the last turn of a step to be over. */
static inline bool attn_turns_give_back(struct attn_turns *turns, const struct attn_turn *turn) {
  atomic_size_t *over = &turns->progress[turn->step].over;
  return atomic_fetch_add_explicit(over, 1, memory_order_acq_rel) + 1 == turns->runs;
}

#endif
