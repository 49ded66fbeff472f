/* Turns: which worker takes which queries through which rows, next.
 *
 * A query meets the rows of a part in their order, since its state adds them up; in
 * which order different queries do so, and on which worker, changes nothing. So the
 * queries go in steps, each step has a count of the runs of rows that it has behind
 * it, and a worker takes one that nobody has and that has the fewest: all steps stay on
 * about the same rows, which are then in the cache. A worker that is done with its
 * own part takes turns in others; so all end at about the same time though one was held
 * up, and the answer is the same to the bit.
 *
 * Rejected: a fixed share of the queries or rows for each worker, where in large batches
 * the first to end waited for 4 % of the time on a machine with neighbours; tasks that are
 * finer, whose states have to be merged; a queue, which would need a lock.
 *
 * Threads: `states` is all there is. Who has a step owns its queries' state of the part;
 * taking it acquires what giving it back released. */
#ifndef ATTN_TURNS_H
#define ATTN_TURNS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of one part. */
struct attn_turns {
  size_t steps, runs;
  atomic_size_t *states; /* of each step: twice the runs behind it, and 1 more while it is taken */
};

struct attn_turn {
  size_t step, run;
};

/* False where nothing is left, or what is left is taken. Of steps that are equally far behind
 * the first from `home` on is taken, so that workers with homes of their own mostly keep to
 * the same queries. `turn` is the worker's last one, or zeroed, and becomes its next. */
static inline bool attn_turns_take(struct attn_turns *turns, size_t home, struct attn_turn *turn) {
  for (;;) {
    size_t fewest = SIZE_MAX, place = 0;
    for (size_t i = 0, s = home; i < turns->steps; i++, s = s + 1 < turns->steps ? s + 1 : 0) {
      const size_t state = atomic_load_explicit(&turns->states[s], memory_order_relaxed);
      if (state % 2 != 0 || state == 2 * turns->runs || state >= fewest) continue;
      fewest = state;
      place = s;
      if (state <= 2 * turn->run) break;
    }
    if (fewest == SIZE_MAX) return false;
    if (atomic_compare_exchange_strong_explicit(&turns->states[place], &fewest, fewest + 1,
                                                memory_order_acquire, memory_order_relaxed)) {
      *turn = (struct attn_turn){place, fewest / 2};
      return true;
    }
  }
}

static inline void attn_turns_give_back(struct attn_turns *turns, const struct attn_turn *turn) {
  atomic_store_explicit(&turns->states[turn->step], 2 * turn->run + 2, memory_order_release);
}

#endif
