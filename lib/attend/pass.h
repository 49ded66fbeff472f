/* One pass of some queries over all tiles of a memory, in one arithmetic. */
#ifndef ATTN_PASS_H
#define ATTN_PASS_H

#include <stdatomic.h>

#include "attend/arithmetic.h"
#include "attend/fold.h"
#include "attend/tile.h"

struct attn_pass_plan {
  const attn_snapshot *memory;
  const attn_request *request;
  attn_result *result;
  const attn_pool *pool; /* may be NULL */
  struct attn_arena *arena;
  const struct attn_tile *tiles;
  size_t tile_count, splits; /* splits: attn_pass_splits() */
  bool f32;                  /* float32 */
  struct attn_traits traits;
  const struct attn_margin *margins; /* f32 and select: of each query of the pass */
};

/* Splits that the tiles of a memory are cut into for such a pool. */
size_t attn_pass_splits(const attn_snapshot *memory, const attn_pool *pool);

/* How the queries of such a pass are mapped, for either arithmetic. */
struct attn_query_map attn_pass_query_map(const struct attn_pass_plan *plan, bool f32);

/* Answers queries that were mapped for the plan's arithmetic. If the float32 pass finds that a
 * query's largest exponent is beyond `limit`, it leaves the query unanswered and adds its number
 * to `redo` (which has space for all of them). */
attn_status attn_pass_run(const struct attn_pass_plan *plan, const struct attn_queries *queries,
                          double limit, size_t *redo, size_t *redo_count);

#endif
