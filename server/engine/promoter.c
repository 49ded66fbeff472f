/* The huge-page promoter works in steps: a round goes through all memories, in the
 * order of their names, and begins a while after something new was published. Blocks
 * that were deleted by then are skipped, and for blocks that were promoted in an earlier
 * round a flag is tested; so no record is kept of which memory is how far. A memory that
 * comes or goes during a round moves the others' places in that order: what the round
 * misses by that the next one finds, which the change has asked for. */
#include "engine/promoter.h"

#include <math.h>

#include "base/clock.h"

/* Bytes per step; per step while somebody writes; and of the smallest memory that is
 * worth promoting. */
enum { STEP = 16 << 20, SMALL_STEP = 2 << 20, SMALLEST = 4 << 20 };

/* Between a change and the round. */
static const double STAY_SECONDS = 1;

/* The kernel takes 0.3 to 5 ms for 2 MiB. While somebody writes, each step is followed by
 * a rest so many times as long, so that not one write in fifty meets one. */
static const double BUSY_REST = 50;

/* What a step may spend on finding that there is nothing to do. */
static const double STEP_SECONDS = 1e-3;

void promoter_want(struct promoter *promoter) {
  if (!promoter->registry || promoter->wanted) return;
  promoter->wanted = true;
  if (!promoter->going) promoter->due = clock_seconds() + STAY_SECONDS;
}

double promoter_wait(const struct promoter *promoter) {
  if (!promoter->going && !promoter->wanted) return INFINITY;
  return fmax(promoter->due - clock_seconds(), 0);
}

static bool is_worth_it(const struct memory *memory) {
  return attn_snapshot_bytes(memory->snapshot) >= SMALLEST;
}

/* False at the end of the round. */
static bool step(struct promoter *promoter, struct memory *const *memories, size_t count,
                 size_t bytes) {
  const double began = clock_seconds();
  while (promoter->memory < count) {
    const attn_snapshot *snapshot = memories[promoter->memory]->snapshot;
    if (is_worth_it(memories[promoter->memory])) {
      promoter->block = attn_snapshot_promote_huge_pages(snapshot, promoter->block, bytes);
      if (promoter->block < attn_snapshot_block_count(snapshot)) return true;
    }
    promoter->memory++;
    promoter->block = 0;
    if (clock_seconds() - began > STEP_SECONDS) return true;
  }
  return false;
}

void promoter_run(struct promoter *promoter, bool busy) {
  if (!promoter->going) {
    promoter->going = true;
    promoter->wanted = false;
    promoter->memory = promoter->block = 0;
  }
  const double began = clock_seconds();
  size_t count;
  struct memory **memories = registry_list(promoter->registry, &count);
  promoter->going = memories && step(promoter, memories, count, busy ? SMALL_STEP : STEP);
  registry_list_free(memories, count);
  const double ended = clock_seconds(), rest = busy ? BUSY_REST * (ended - began) : 0;
  promoter->due = ended + (promoter->going ? rest : STAY_SECONDS);
}
