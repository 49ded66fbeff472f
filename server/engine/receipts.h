/* The last appends that named an Idempotency-Key: so that one that comes again
 * is answered, and not done, again. */
#ifndef ENGINE_RECEIPTS_H
#define ENGINE_RECEIPTS_H

#include "engine/change.h"

#define RECEIPTS_KEPT 1024

/* Oldest first; zeroed it is empty. */
struct receipts {
  struct append_receipt *items;
  size_t count, room;
};

/* NULL where there is none of that key. */
const struct append_receipt *receipts_find(const struct receipts *receipts, const char *key);

/* The key is copied. One of the same key is replaced. False: no memory. */
bool receipts_add(struct receipts *receipts, const struct append_receipt *receipt);

/* Drops what was added last, or is too old. */
void receipts_shorten(struct receipts *receipts, size_t count);
void receipts_trim(struct receipts *receipts);
void receipts_clear(struct receipts *receipts);

#endif
