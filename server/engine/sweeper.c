/* Sweeping, in slices: large ones while nobody writes, small ones now and then
 * while somebody does, and at once where a write found no room.
 *
 * A sweep that failed is not tried again for a while. That is its own rest and not
 * the one of folds: on a full disk each fold fails, and what a delete has left
 * would never be removed, which is the only way to more room. */
#include "engine/sweeper.h"

#include <math.h>

#include "base/clock.h"

/* Bytes per slice, and before a write that found no room is tried again. */
enum { SLICE = 64 << 20, SMALL_SLICE = 8 << 20, ROOM = 1 << 20 };

/* Between a failure and the next attempt, and between slices while there are
 * writes. */
static const double REST_SECONDS = 5, SWEEP_SECONDS = 0.1;

double sweeper_wait(const struct sweeper *sweeper, bool busy) {
  if (!sweeper->store || !sweeper->garbage || store_failure(sweeper->store)) return INFINITY;
  const double next = busy ? sweeper->swept + SWEEP_SECONDS : 0;
  const double wait = fmax(next, sweeper->rest_until) - clock_seconds();
  return wait > 0 ? wait : 0;
}

static bool sweep(struct sweeper *sweeper, size_t bytes) {
  const enum store_status status = store_sweep(sweeper->store, bytes, &sweeper->garbage);
  sweeper->swept = clock_seconds();
  if (status == STORE_OK) return true;
  sweeper->garbage = true;
  sweeper->rest_until = sweeper->swept + REST_SECONDS;
  return false;
}

void sweeper_run(struct sweeper *sweeper, bool busy) {
  sweep(sweeper, busy ? SMALL_SLICE : SLICE);
}

/* Near a full disk the store sweeps little at a time, whatever it is asked for. */
bool sweeper_make_room(struct sweeper *sweeper) {
  if (!sweeper->store) return false;
  bool more = store_made_room(sweeper->store);
  const double until = clock_seconds() + SWEEP_SECONDS;
  while (!more && sweeper_wait(sweeper, false) <= 0) {
    more = sweep(sweeper, ROOM) && (!sweeper->garbage || clock_seconds() > until);
  }
  return more;
}
