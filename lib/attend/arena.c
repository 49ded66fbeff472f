/* The arena of one call.
 *
 * A batch needs some hundred KB while it is computed: states, scores, mapped
 * queries. If malloc() is asked each time, the larger ones come from the kernel and
 * go back to it: pages to be cleared, and on several cores an interrupt for
 * each of the others to forget the addresses. For 64 queries on 1,000 x 64 that
 * was a fifth of the time. So an arena has a few large pieces and allocates from
 * them by moving a pointer; the pieces come from the caller's pool if it has an
 * allocator, go from request to request and stay warm.
 *
 * Static buffers in the library were rejected (it has no state of its own), and
 * so was asking for the exact sum of all needs beforehand: that would be every
 * size said twice. */
#include "attend/arena.h"

#include <stdlib.h>

#include "memory/snapshot.h"

/* In bytes. A piece is a power of two, so that it serves many requests. */
enum { ALIGNED = 64, LEAST_PIECE = 1 << 14 };

struct attn_arena_piece {
  struct attn_arena_piece *next;
  size_t bytes; /* with this head */
};

static size_t aligned(size_t bytes) {
  return bytes > SIZE_MAX - ALIGNED ? SIZE_MAX : (bytes + ALIGNED - 1) / ALIGNED * ALIGNED;
}

static size_t piece_bytes(size_t least) {
  size_t bytes = LEAST_PIECE;
  while (bytes < least && bytes <= SIZE_MAX / 2)
    bytes *= 2;
  return bytes < least ? least : bytes;
}

static void *obtain(const attn_pool *pool, size_t bytes) {
  if (pool && pool->alloc) return pool->alloc(pool->context, bytes);
  return bytes < SIZE_MAX / 2 ? aligned_alloc(ALIGNED, bytes) : NULL;
}

static struct attn_arena_piece *add_piece(struct attn_arena *arena, size_t least) {
  const size_t bytes = piece_bytes(least);
  struct attn_arena_piece *piece = arena->failed ? NULL : obtain(arena->pool, bytes);
  arena->failed = !piece;
  if (!piece) return NULL;
  *piece = (struct attn_arena_piece){.next = arena->pieces, .bytes = bytes};
  arena->pieces = piece;
  arena->used = aligned(sizeof *piece);
  return piece;
}

struct attn_arena attn_arena_begin(const attn_pool *pool, size_t expected) {
  struct attn_arena arena = {.pool = pool};
  const size_t head = aligned(sizeof(struct attn_arena_piece));
  if (expected < SIZE_MAX / 4) add_piece(&arena, head + expected);
  return arena;
}

void *attn_arena_alloc(struct attn_arena *arena, size_t count, size_t size) {
  const size_t bytes = aligned(attn_size_times(count, size));
  const size_t head = aligned(sizeof(struct attn_arena_piece));
  if (bytes >= SIZE_MAX / 4) return NULL;
  struct attn_arena_piece *piece = arena->pieces;
  if (!piece || piece->bytes - arena->used < bytes) piece = add_piece(arena, head + bytes);
  if (!piece) return NULL;
  void *taken = (char *)piece + arena->used;
  arena->used += bytes;
  return taken;
}

void attn_arena_end(struct attn_arena *arena) {
  for (struct attn_arena_piece *piece = arena->pieces; piece;) {
    struct attn_arena_piece *next = piece->next;
    if (arena->pool && arena->pool->alloc)
      arena->pool->free(arena->pool->context, piece, piece->bytes);
    else
      free(piece);
    piece = next;
  }
  *arena = (struct attn_arena){0};
}
