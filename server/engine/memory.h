/* One version of a named memory: immutable once published, counted. */
#ifndef ENGINE_MEMORY_H
#define ENGINE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "attention.h"
#include "engine/row_tags.h"

struct memory {
  const char *name;
  int64_t version;
  attn_snapshot *snapshot;
  struct row_tags *tags; /* ids and times of the rows; NULL: they have none */
  attn_score *score;
  attn_normalization *normalization;
  int64_t ttl_ms;      /* of rows that are written with no time of their own; 0: they stay */
  int64_t soonest;     /* when the next row expires, or NEVER_EXPIRES; memory_create() finds out */
  const char *damaged; /* NULL, or why the stored memory can't be read: then it has no rows, and
                          nothing but to delete or to replace it makes sense */
};

/* A version of those parts, of each of which a reference is taken; name and
 * reason are copied. NULL: no memory. */
struct memory *memory_create(const struct memory *parts);
struct memory *memory_ref(struct memory *memory);
void memory_free(struct memory *memory); /* drops a reference; accepts NULL */
size_t memory_bytes(const struct memory *memory);

/* The memory as it is at `now`: itself (with a further reference) where no row
 * has expired, else one of the same version without those rows. The writer
 * takes them out for good a moment later; until then each reader does this for
 * itself and waits for nobody. NULL: no memory. */
struct memory *memory_at_time(struct memory *memory, int64_t now);

#endif
