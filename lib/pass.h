/* One pass of some queries over all tiles of a memory, in one arithmetic. */
#ifndef ATTN_PASS_H
#define ATTN_PASS_H

#include <stdatomic.h>

#include "arithmetic.h"
#include "fold.h"
#include "tile.h"

struct attn_pass_plan {
  const attn_snapshot *memory;
  const attn_request *request;
  attn_result *result;
  const attn_pool *pool; /* may be NULL */
  struct attn_room *room;
  const struct attn_tile *tiles;
  size_t tile_count, parts; /* of the tiles; attn_pass_parts() */
  bool fast;                /* float32 */
  struct attn_combination combination;
  const struct attn_margin *margins; /* fast and select: of each query of the pass */
};

/* Parts that the tiles of a memory are cut into for such a pool. */
size_t attn_pass_parts(const attn_snapshot *memory, const attn_pool *pool);

/* How the queries of such a pass are mapped, for either arithmetic. */
struct attn_query_map attn_pass_query_map(const struct attn_pass_plan *plan, bool fast);

/* Answers queries that were mapped for the plan's arithmetic. Where the float32
 * pass finds that a query's largest exponent is beyond `limit`, it leaves the
 * query unanswered and adds its number to `redo` (room for all of them). */
attn_status attn_pass_run(const struct attn_pass_plan *plan, const struct attn_queries *queries,
                          double limit, size_t *redo, size_t *redo_count);

#endif
