/* Threads that check and decode the blocks of a memory while the next ones are
 * read. */
#ifndef ENGINE_DECODERS_H
#define ENGINE_DECODERS_H

#include "attention.h"
#include "store/store.h"

struct decoders;

/* Threads that can't be had are done without; 0 are enough. NULL: no memory. */
struct decoders *decoders_create(unsigned threads);
void decoders_free(struct decoders *decoders); /* accepts NULL */

/* A chunk that was fetched, and what is to become of it. */
struct decoding {
  struct buffer bytes;
  int64_t id, chunk;
  uint64_t sum;
  size_t index;               /* of the block; counts up within a run */
  const attn_snapshot *shape; /* both live until the run ends */
  attn_block **block;
  struct decoding *next;
};

/* For one more, its bytes empty: waits until there is room. */
struct decoding *decoders_room(struct decoders *decoders);

/* It is filled and shall be decoded, or was for nothing. */
void decoders_submit(struct decoders *decoders, struct decoding *decoding);
void decoders_give_back(struct decoders *decoders, struct decoding *decoding);

/* Ends a run: waits for all that was submitted. What came of the first block that
 * could not be decoded; STORE_OK, STORE_DAMAGED or STORE_NO_MEMORY. */
enum store_status decoders_finish(struct decoders *decoders);

/* Whether one could not: nothing more has to be submitted. */
bool decoders_failed(struct decoders *decoders);

#endif
