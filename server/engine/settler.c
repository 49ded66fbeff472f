/* Settling, in steps: a round goes through all memories, in the order of their
 * names, and begins a while after something new was published. What is gone by
 * then costs nothing, and what was settled in an earlier round next to nothing; so
 * nobody keeps account of which memory is where. One that comes or goes during a
 * round moves the others' places in that order: what the round misses by that the
 * next one finds, which the change has asked for. */
#include "engine/settler.h"

#include <math.h>

#include "base/clock.h"

/* Bytes per step; while somebody writes; and of the smallest memory that huge pages
 * are worth anything to. */
enum { STEP = 16 << 20, SMALL_STEP = 2 << 20, SMALLEST = 4 << 20 };

/* Between a change and the round. */
static const double STAY_SECONDS = 1;

/* The kernel takes 0.3 to 5 ms for 2 MiB. While somebody writes, each step is followed by
 * a rest so many times as long, so that not one write in fifty meets one. */
static const double BUSY_REST = 50;

/* What a step may spend on finding that there is nothing to do. */
static const double STEP_SECONDS = 1e-3;

void settler_want(struct settler *settler) {
  if (!settler->registry || settler->wanted) return;
  settler->wanted = true;
  if (!settler->going) settler->due = clock_seconds() + STAY_SECONDS;
}

double settler_wait(const struct settler *settler) {
  if (!settler->going && !settler->wanted) return INFINITY;
  return fmax(settler->due - clock_seconds(), 0);
}

static bool is_worth_it(const struct memory *memory) {
  return attn_snapshot_bytes(memory->snapshot) >= SMALLEST;
}

/* False at the end of the round. */
static bool step(struct settler *settler, struct memory *const *memories, size_t count,
                 size_t bytes) {
  const double began = clock_seconds();
  while (settler->memory < count) {
    const attn_snapshot *snapshot = memories[settler->memory]->snapshot;
    if (is_worth_it(memories[settler->memory])) {
      settler->block = attn_snapshot_settle(snapshot, settler->block, bytes);
      if (settler->block < attn_snapshot_block_count(snapshot)) return true;
    }
    settler->memory++;
    settler->block = 0;
    if (clock_seconds() - began > STEP_SECONDS) return true;
  }
  return false;
}

void settler_run(struct settler *settler, bool busy) {
  if (!settler->going) {
    settler->going = true;
    settler->wanted = false;
    settler->memory = settler->block = 0;
  }
  const double began = clock_seconds();
  size_t count;
  struct memory **memories = registry_list(settler->registry, &count);
  settler->going = memories && step(settler, memories, count, busy ? SMALL_STEP : STEP);
  registry_list_free(memories, count);
  const double ended = clock_seconds(), rest = busy ? BUSY_REST * (ended - began) : 0;
  settler->due = ended + (settler->going ? rest : STAY_SECONDS);
}
