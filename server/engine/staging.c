/* What is too large for one transaction between two batches.
 *
 * A large new memory is stored ahead of its base, under an id of its own; its
 * write joins a batch when all is there. Part of it may be there when the write
 * comes (arriving.c). A fold (the changes of a memory have become many; what they
 * lead to is stored as chunks, and a new base takes their place) does the same with
 * the version it began with, while the memory goes on changing: what it has stored
 * is used by the base that ends it, and if the memory has got another base by then,
 * or has gone, by nothing.
 *
 * A chunk that no base names is garbage. The store would find it when it is opened
 * the next time; a full disk can't wait so long, so the store is told. */
#include "engine/staging.h"

#include <stdlib.h>

#include "engine/arriving.h"

/* A fold writes the blocks that changed: it is due once the changes are a good
 * part of those, or so many that a restart would take long. */
enum { FOLD_LEAST = 1 << 20, FOLD_MOST = 64 << 20, FOLD_PART = 4 };

/* Bytes that may be stored within a batch. */
enum { SMALL_MEMORY = 4 << 20 };

bool staging_is_worth_it(const struct memory *memory) {
  size_t bytes = 0;
  for (size_t i = 0; i < attn_snapshot_block_count(memory->snapshot) && bytes <= SMALL_MEMORY; i++)
    bytes += attn_block_encoded_size(memory->snapshot, attn_snapshot_block(memory->snapshot, i));
  return bytes > SMALL_MEMORY;
}

static bool begin_storing(struct write *write, struct store *store, struct staged *staged) {
  if (write->arriving) {
    const bool taken = arriving_take(write->arriving, write->memory, staged);
    if (taken) write->arriving = NULL;
    return taken;
  }
  *staged = (struct staged){.place = kept_new_place(store), .kept = kept_create(write->memory)};
  return staged->kept;
}

struct staging *staging_of_write(struct write *write, struct store *store) {
  struct staging *staging = calloc(1, sizeof *staging);
  if (!staging || !begin_storing(write, store, &staging->staged)) {
    free(staging);
    return NULL;
  }
  staging->write = write;
  staging->memory = memory_ref(write->memory);
  staging->bytes = memory_bytes(write->memory);
  return staging;
}

struct staging *staging_of_fold(struct tip *tip) {
  struct staging *staging = calloc(1, sizeof *staging);
  const struct tip_state *state = &tip->published;
  struct kept *kept = NULL;
  if (staging)
    kept = state->kept ? kept_follow(state->kept, state->memory) : kept_create(state->memory);
  if (!kept) {
    free(staging);
    return NULL;
  }
  *staging = (struct staging){.tip = tip,
                              .memory = memory_ref(state->memory),
                              .staged = {.place = state->place, .kept = kept},
                              .bytes = kept_missing_bytes(kept, state->memory),
                              .change_bytes = state->change_bytes,
                              .base_version = state->base_version};
  return staging;
}

void staging_free(struct staging *staging) {
  if (!staging) return;
  kept_free(staging->staged.kept);
  memory_free(staging->memory);
  free(staging);
}

bool staging_is_due(const struct tip *tip) {
  const struct tip_state *state = &tip->published;
  if (!state->memory || state->memory->damaged || state->change_bytes < FOLD_LEAST) return false;
  if (state->change_bytes >= FOLD_MOST || !state->kept) return true;
  return state->change_bytes >= kept_missing_bytes(state->kept, state->memory) / FOLD_PART;
}

bool staging_is_stale(const struct staging *staging) {
  return !staging->write &&
         (!staging->tip || staging->tip->published.place.id != staging->staged.place.id ||
          staging->tip->published.base_version != staging->base_version);
}

enum store_status staging_store(struct staging *staging, size_t bytes) {
  struct kept_place *place = &staging->staged.place;
  /* The memory's own changes may take numbers as well. */
  if (staging->tip) place->next_chunk = staging->tip->published.place.next_chunk;
  enum store_status status = store_begin(place->store);
  store_expect_chunks(place->store, staging->bytes);
  if (status == STORE_OK)
    status = kept_store(staging->staged.kept, place, staging->memory, bytes, &staging->complete);
  if (status == STORE_OK)
    status = store_commit(place->store);
  else
    store_rollback(place->store);
  if (status == STORE_OK)
    kept_settle(staging->staged.kept);
  else
    kept_forget(staging->staged.kept);
  if (staging->tip) {
    staging->tip->published.place.next_chunk = place->next_chunk;
    staging->tip->now.place.next_chunk = place->next_chunk;
  }
  return status;
}

enum store_status staging_finish_fold(struct staging *staging) {
  struct tip *tip = staging->tip;
  struct store *store = staging->staged.place.store;
  enum store_status status = store_begin(store);
  if (status == STORE_OK)
    status = kept_put_base(staging->staged.kept, &staging->staged.place, staging->memory,
                           &tip->receipts);
  if (status == STORE_OK)
    status = store_commit(store);
  else
    store_rollback(store);
  if (status == STORE_OK)
    tip_folded(tip, staging->staged.kept, staging->memory->version, staging->change_bytes);
  return status;
}

void staging_abandon(struct staging *staging) {
  kept_abandon(staging->staged.kept, &staging->staged.place);
}
