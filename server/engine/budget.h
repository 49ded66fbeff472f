/* RAM that memories may take together: asked before anything is allocated, but for an
 * upload, which asks block by block and for each when it has it (api/building.c). */
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

/* Whether there is room for that beside what is used. */
static inline bool budget_fits(const struct budget *budget, size_t used, size_t bytes,
                               struct problem *problem) {
  const size_t left = budget->limit > used ? budget->limit - used : 0;
  if (budget->limit == 0 || bytes <= left) return true;
  return problem_set(problem, PROBLEM_RAM_FULL, "",
                     "this takes %zu bytes of RAM, and %zu of the %zu that memories may have "
                     "together are left",
                     bytes, left, budget->limit);
}

/* False, with the problem filled, where less than `bytes` are left. The first takes
 * nothing: for what will be taken by and by, and is better refused at once. */
static inline bool budget_check(struct budget *budget, size_t bytes, struct problem *problem) {
  return budget_fits(budget, atomic_load(&budget->used), bytes, problem);
}

static inline bool budget_take(struct budget *budget, size_t bytes, struct problem *problem) {
  size_t used = atomic_load(&budget->used);
  do
    if (!budget_fits(budget, used, bytes, problem)) return false;
  while (!atomic_compare_exchange_weak(&budget->used, &used, used + bytes));
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
