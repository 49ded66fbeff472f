/* Room for what is needed during one call and not after it. */
#ifndef ATTN_ROOM_H
#define ATTN_ROOM_H

#include "attention.h"

struct attn_room_piece;

/* Used by one thread at a time. */
struct attn_room {
  const attn_pool *pool;          /* lends the pieces; malloc() does without one */
  struct attn_room_piece *pieces; /* the one in use first */
  size_t used;                    /* of that one, in bytes */
  bool failed;                    /* a piece could not be had: nothing is given any more */
};

/* An empty room, where `expected` bytes will be taken at once or little by
 * little. It is a first guess: there is as much as is asked for. */
struct attn_room attn_room_enter(const attn_pool *pool, size_t expected);

/* count * size bytes that belong to the room, for what has the alignment of a
 * vector and begins with whatever was there. NULL where there is no memory, or
 * the product overflows. */
void *attn_room_take(struct attn_room *room, size_t count, size_t size);

/* Ends the life of all that was taken. */
void attn_room_leave(struct attn_room *room);

#endif
