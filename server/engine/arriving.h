/* Memories whose rows are still arriving, on their way into the store: block by
 * block, before the write that puts them is submitted. */
#ifndef ENGINE_ARRIVING_H
#define ENGINE_ARRIVING_H

#include "engine/tip.h"

struct arriving;
struct arrivals; /* those of a writer */

/* Bytes that are stored at once, usually. */
enum { ARRIVING_SLICE = 64 << 20 };

/* ---- For whoever has the rows, on any thread, one at a time ---- */

/* One that is to have so many blocks of that shape, for which room is made as they are
 * given. NULL: no memory. */
struct arriving *arriving_create(struct arrivals *arrivals, const attn_snapshot *shape,
                                 size_t blocks);

/* The next block, in order; a reference is taken. It is not changed any more. */
void arriving_give(struct arriving *arriving, attn_block *block);

/* Nothing will come of it: blocks are let go, and what was stored is garbage. Not
 * for one that went with a write, which belongs to the writer. Accepts NULL. */
void arriving_end(struct arriving *arriving);

/* ---- The writer's ---- */

struct arrivals_config {
  struct store *store;
  size_t slice; /* bytes */
  /* Called, with no lock held, when arrivals_are_due() has become true. */
  void (*wake)(void *context);
  void *context;
};

/* NULL: no memory. */
struct arrivals *arrivals_create(const struct arrivals_config *config);
void arrivals_free(struct arrivals *arrivals); /* accepts NULL; those that are left end */

/* Whether there is a slice to be stored, or something to be let go. */
bool arrivals_are_due(struct arrivals *arrivals);

/* Does one of these, between two transactions; of a slice about `most` bytes. */
void arrivals_work(struct arrivals *arrivals, size_t most);

/* The end of one whose memory is put: what of it is in the store already. False: no
 * memory, and nothing has happened. */
bool arriving_take(struct arriving *arriving, const struct memory *memory, struct staged *staged);

#endif
