/* The schedule of a split: which query block a worker computes with which key block next.
 *
 * A work item is a query block with a key block, as in the two loops of FlashAttention; a split
 * is a range of rows with a state of its own for each query, as in Flash-Decoding. What key
 * blocks add to a query's state is added in the order of the rows, so the answer is the same to
 * the bit whichever worker computes them; the order of the query blocks is free. Each query
 * block counts the key blocks that were claimed. A worker claims the next key block of the query
 * block that no worker has and that is furthest behind: all query blocks stay on about the same
 * rows, which are then in the cache. If every remaining query block has a worker, a second one
 * computes the next key block of one of them at the same time and waits with its partial until
 * the key blocks before it are added. A worker whose own split is done claims items of others, so
 * all end at about the same time even if one of them was held up.
 *
 * Never block, or run another job, while holding an item: the worker that has the next key block
 * spins until this one is complete, so that would deadlock.
 *
 * Rejected: a fixed part of the queries or rows for each worker (in large batches the first one
 * to end waited for 4 % of the time on a machine with neighbours); more splits, whose states have
 * to be merged; a queue, which needs a lock; one worker at a time for each query block, which
 * cost single queries, having one query block, 3 to 6 % of their time.
 *
 * Threads: `progress` is all that is shared. The worker with the first incomplete item of a query
 * block owns the states of its queries; attn_schedule_wait() acquires what completing the item
 * before released, and completing the last item acquires what all the others released. */
#ifndef ATTN_SCHEDULE_H
#define ATTN_SCHEDULE_H

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Key blocks of a query block, in order: claimed by a worker, and complete. */
struct attn_progress {
  atomic_size_t claimed, done;
};

/* Of one split. */
struct attn_schedule {
  size_t query_blocks, key_blocks;
  size_t max_workers; /* with items of one query block */
  struct attn_progress *progress;
};

struct attn_work_item {
  size_t query_block, key_block;
};

/* False if nothing is left, or every remaining query block has its maximum of workers. Of query
 * blocks that are equally far behind, the first from `preferred` on is taken, so that each worker
 * mostly keeps to the same queries. `item` is the worker's last one, or zeroed, and becomes its
 * next. */
static inline bool attn_schedule_claim(struct attn_schedule *schedule, size_t preferred,
                                       struct attn_work_item *item) {
  for (;;) {
    size_t fewest = SIZE_MAX, least = schedule->max_workers, place = 0;
    for (size_t i = 0, s = preferred; i < schedule->query_blocks;
         i++, s = s + 1 < schedule->query_blocks ? s + 1 : 0) {
      const struct attn_progress *progress = &schedule->progress[s];
      /* in this order, so that the difference is at least what it was */
      const size_t done = atomic_load_explicit(&progress->done, memory_order_acquire);
      const size_t claimed = atomic_load_explicit(&progress->claimed, memory_order_relaxed);
      const size_t busy = claimed - done;
      if (claimed == schedule->key_blocks || busy >= schedule->max_workers) continue;
      if (busy > least || (busy == least && claimed >= fewest)) continue;
      fewest = claimed;
      least = busy;
      place = s;
      if (busy == 0 && claimed <= item->key_block) break;
    }
    if (fewest == SIZE_MAX) return false;
    if (atomic_compare_exchange_strong_explicit(&schedule->progress[place].claimed, &fewest,
                                                fewest + 1, memory_order_relaxed,
                                                memory_order_relaxed)) {
      *item = (struct attn_work_item){place, fewest};
      return true;
    }
  }
}

/* Until the items of the query block before this one are complete; then the worker owns its
 * states. */
static inline void attn_schedule_wait(const struct attn_schedule *schedule,
                                      const struct attn_work_item *item) {
  const atomic_size_t *done = &schedule->progress[item->query_block].done;
  while (atomic_load_explicit(done, memory_order_acquire) != item->key_block)
    sched_yield();
}

/* After attn_schedule_wait(). True for the last item of a query block. */
static inline bool attn_schedule_complete(struct attn_schedule *schedule,
                                          const struct attn_work_item *item) {
  atomic_size_t *done = &schedule->progress[item->query_block].done;
  return atomic_fetch_add_explicit(done, 1, memory_order_acq_rel) + 1 == schedule->key_blocks;
}

#endif
