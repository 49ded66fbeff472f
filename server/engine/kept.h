/* Which parts of a memory are in the store already, and under which numbers. */
#ifndef ENGINE_KEPT_H
#define ENGINE_KEPT_H

#include "engine/receipts.h"
#include "store/store.h"

struct kept;

/* Of a memory of which nothing is stored. NULL: no memory. */
struct kept *kept_create(const struct memory *memory);
void kept_free(struct kept *kept); /* accepts NULL */

/* The same for a version that shares parts with the one `kept` was made for: what
 * is shared is known to be stored. `kept` stays as it is. */
struct kept *kept_follow(const struct kept *kept, const struct memory *memory);

/* Bytes that are still to be stored. */
size_t kept_missing_bytes(const struct kept *kept, const struct memory *memory);

/* Where parts go: under which id, and the number of the next chunk there. */
struct kept_place {
  struct store *store;
  int64_t id;
  int64_t next_chunk;
};

/* For a memory of which nothing is there. */
struct kept_place kept_new_place(struct store *store);

/* Within a transaction: stores about `most` bytes of what is missing; *complete
 * says whether that was all. */
enum store_status kept_store(struct kept *kept, struct kept_place *place,
                             const struct memory *memory, size_t most, bool *complete);
void kept_settle(struct kept *kept); /* the transaction is durable */
void kept_forget(struct kept *kept); /* it was rolled back */

/* Nothing will name the parts that this one has stored. Between transactions. */
void kept_abandon(struct kept *kept, const struct kept_place *place);

/* Parts that were read from the store, in order. */
void kept_take_over(struct kept *kept, const int64_t *chunks, size_t count);

/* The bytes of a block's chunk, in the place of what the buffer had. False: no memory. */
bool kept_encode_block(const attn_snapshot *shape, const attn_block *block, struct buffer *out);

/* Blocks that were stored on the way, the first ones, in order. False where they are not
 * the memory's: then nothing of it is stored. */
bool kept_take_stored(struct kept *kept, attn_block *const *blocks, const int64_t *chunks,
                      size_t count);

/* Within a transaction, when nothing is missing: the base record. */
enum store_status kept_put_base(const struct kept *kept, const struct kept_place *place,
                                const struct memory *memory, const struct receipts *receipts);

/* What kept_put_base() has written, read again. */
struct kept_base {
  attn_snapshot *empty; /* shape and dtype */
  attn_score *score;
  attn_normalization *normalization;
  int64_t ttl_ms;
  int64_t *chunks;
  size_t blocks, count; /* of chunks: those of blocks come first, those of tags last */
  struct receipts receipts;
};
/* As change_decode(). */
attn_status kept_base_decode(struct kept_base *base, const void *data, size_t size);
void kept_base_clear(struct kept_base *base);

#endif
