/* An arena for what is needed during one call and not after it. */
#ifndef ATTN_ARENA_H
#define ATTN_ARENA_H

#include "attention.h"

struct attn_arena_piece;

/* Used by one thread at a time. */
struct attn_arena {
  const attn_pool *pool; /* allocates the pieces; malloc() if it is NULL or has no allocator */
  struct attn_arena_piece *pieces; /* a list, the one in use first */
  size_t used;                     /* of the first piece, in bytes */
  bool failed;                     /* no memory for a piece: nothing is allocated any more */
};

/* An empty arena. `expected` is a guess of how many bytes will be allocated, and
 * no limit. */
struct attn_arena attn_arena_begin(const attn_pool *pool, size_t expected);

/* count * size bytes of the arena, aligned to 64, not cleared. NULL if there is no
 * memory or the product overflows. */
void *attn_arena_alloc(struct attn_arena *arena, size_t count, size_t size);

/* Frees all that was allocated. */
void attn_arena_end(struct attn_arena *arena);

#endif
