/* The last appends that named an Idempotency-Key: so that one that comes again
 * is answered, and not done, again. */
#ifndef ENGINE_RECEIPTS_H
#define ENGINE_RECEIPTS_H

#include "engine/change.h"

#define RECEIPTS_KEPT 1024

/* Oldest first; zeroed it is empty. Those before `ended` are of a memory that was
 * deleted in the batch under way, and count no more unless that fails. */
struct receipts {
  struct append_receipt *items;
  size_t count, room, ended;
};

/* NULL where there is none of that key. */
const struct append_receipt *receipts_find(const struct receipts *receipts, const char *key);

/* The key is copied. Of two with the same key the later one is found. False: no
 * memory. */
bool receipts_add(struct receipts *receipts, const struct append_receipt *receipt);

/* The memory is deleted. */
void receipts_end(struct receipts *receipts);

/* As they were when there were `count`: nothing was added or ended since. */
void receipts_restore(struct receipts *receipts, size_t count);

/* For good: drops what has ended, or is too old. */
void receipts_trim(struct receipts *receipts);
void receipts_clear(struct receipts *receipts);

#endif
