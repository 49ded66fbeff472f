/* A memory on its way into the store, slice by slice: a large new one, or one
 * that gets a new base. */
#ifndef ENGINE_STAGING_H
#define ENGINE_STAGING_H

#include "engine/tip.h"

struct staging {
  struct write *write;   /* that waits for it; NULL: a fold */
  struct tip *tip;       /* of a fold; the writer's to set to NULL where the tip goes */
  struct memory *memory; /* a reference */
  struct staged staged;
  size_t bytes;         /* about so many are stored in all */
  size_t change_bytes;  /* of a fold: what it makes superfluous */
  int64_t base_version; /* of a fold: of the base that there was when it began */
  bool complete;
  struct staging *next; /* the writer's */
};

/* Whether a new memory is too large to be stored within a batch. */
bool staging_is_worth_it(const struct memory *memory);

/* NULL: no memory. */
struct staging *staging_of_write(struct write *write, struct store *store);
struct staging *staging_of_fold(struct tip *tip);
void staging_free(struct staging *staging); /* what is in the store stays there */

/* Whether a fold would be of use to the memory as it is published. */
bool staging_is_due(const struct tip *tip);

/* The fold's memory has been replaced, deleted or given a new base meanwhile: it is
 * of no use. */
bool staging_is_stale(const struct staging *staging);

/* One slice, in a transaction of its own; then `complete` says whether it was the
 * last. */
enum store_status staging_store(struct staging *staging, size_t bytes);

/* A fold that is complete: the new base. */
enum store_status staging_finish_fold(struct staging *staging);

/* Nothing will come of it: what is in the store is garbage. */
void staging_abandon(struct staging *staging);

#endif
