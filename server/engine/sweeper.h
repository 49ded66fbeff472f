/* When what nothing names any more is removed from the store. */
#ifndef ENGINE_SWEEPER_H
#define ENGINE_SWEEPER_H

#include "store/store.h"

/* The writer's thread's alone. Zeroed but for `store` there is nothing to do. */
struct sweeper {
  struct store *store;      /* NULL: there never is */
  bool garbage;             /* there may be some; set by whoever leaves it */
  double swept, rest_until; /* in clock_seconds() */
};

/* Seconds until a sweep is due, 0 where it is; INFINITY where there is nothing to
 * sweep. */
double sweeper_wait(const struct sweeper *sweeper, bool busy);

/* Sweeps some. */
void sweeper_run(struct sweeper *sweeper, bool busy);

/* After STORE_FULL, between transactions: true where there is more room now, so
 * that the same may work. */
bool sweeper_make_room(struct sweeper *sweeper);

#endif
