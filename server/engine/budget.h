/* RAM that memories may take together: asked before anything is allocated. */
#ifndef ENGINE_BUDGET_H
#define ENGINE_BUDGET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/problem.h"

/* By any thread; zeroed, with a limit, it is ready. */
struct budget {
  size_t limit; /* 0: none */
  atomic_size_t used;
};

/* False, with the problem filled, where less than `bytes` are left. */
static inline bool budget_take(struct budget *budget, size_t bytes, struct problem *problem) {
  size_t used = atomic_load(&budget->used);
  do {
    const size_t left = budget->limit > used ? budget->limit - used : 0;
    if (budget->limit > 0 && bytes > left)
      return problem_set(problem, PROBLEM_RAM_FULL, "",
                         "this takes %zu bytes of RAM, and %zu of the %zu that memories may have "
                         "together are left",
                         bytes, left, budget->limit);
  } while (!atomic_compare_exchange_weak(&budget->used, &used, used + bytes));
  return true;
}

static inline void budget_give(struct budget *budget, size_t bytes) {
  atomic_fetch_sub(&budget->used, bytes);
}

/* What was estimated is known now, or has changed. */
static inline void budget_correct(struct budget *budget, size_t from, size_t to) {
  atomic_fetch_add(&budget->used, to - from); /* unsigned numbers wrap: also downwards */
}

#endif
