/* Room for one call.
 *
 * A batch needs some hundred KB while it is computed: states, scores, mapped
 * queries. Asked of malloc() each time, the larger ones came from the kernel and
 * went back to it: pages to be cleared, and on several cores an interrupt for
 * each of the others to forget the addresses. For 64 queries on 1,000 x 64 that
 * was a fifth of the time. So room is taken in a few large pieces, one end after
 * the other, and the pieces come from the pool where it lends some: they go from
 * request to request and stay warm.
 *
 * Static buffers in the library were rejected (it has no state of its own), and
 * so was asking for the exact sum of all needs beforehand: that would be every
 * size said twice. */
#include "room.h"

#include <stdlib.h>

#include "snapshot.h"

/* In bytes. A piece is a power of two, so that it serves many requests. */
enum { ALIGNED = 64, LEAST_PIECE = 1 << 14 };

struct attn_room_piece {
  struct attn_room_piece *following;
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
  if (pool && pool->lend) return pool->lend(pool->context, bytes);
  return bytes < SIZE_MAX / 2 ? aligned_alloc(ALIGNED, bytes) : NULL;
}

static struct attn_room_piece *add_piece(struct attn_room *room, size_t least) {
  const size_t bytes = piece_bytes(least);
  struct attn_room_piece *piece = room->failed ? NULL : obtain(room->pool, bytes);
  room->failed = !piece;
  if (!piece) return NULL;
  *piece = (struct attn_room_piece){.following = room->pieces, .bytes = bytes};
  room->pieces = piece;
  room->used = aligned(sizeof *piece);
  return piece;
}

struct attn_room attn_room_enter(const attn_pool *pool, size_t expected) {
  struct attn_room room = {.pool = pool};
  const size_t head = aligned(sizeof(struct attn_room_piece));
  if (expected < SIZE_MAX / 4) add_piece(&room, head + expected);
  return room;
}

void *attn_room_take(struct attn_room *room, size_t count, size_t size) {
  const size_t bytes = aligned(attn_size_times(count, size));
  const size_t head = aligned(sizeof(struct attn_room_piece));
  if (bytes >= SIZE_MAX / 4) return NULL;
  struct attn_room_piece *piece = room->pieces;
  if (!piece || piece->bytes - room->used < bytes) piece = add_piece(room, head + bytes);
  if (!piece) return NULL;
  void *taken = (char *)piece + room->used;
  room->used += bytes;
  return taken;
}

void attn_room_leave(struct attn_room *room) {
  for (struct attn_room_piece *piece = room->pieces; piece;) {
    struct attn_room_piece *following = piece->following;
    if (room->pool && room->pool->lend)
      room->pool->take_back(room->pool->context, piece, piece->bytes);
    else
      free(piece);
    piece = following;
  }
  *room = (struct attn_room){0};
}
