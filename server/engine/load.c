/* Loading: the base, its chunks, then the changes since, replayed.
 *
 * Everything the store hands out has been checked against a checksum, so what
 * fails here beyond that was written wrongly or by another version; it is
 * treated alike: that memory is damaged, the others are served. */
#include "engine/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct loading {
  struct tip *tip;
  struct store *store;
  struct decoders *decoders;
  const struct store_memory *stored;
  struct kept_base base;
  struct tip_state state;
  bool short_of_memory;
  const char *damage; /* what can't be read */
};

static bool damaged(struct loading *loading, const char *what) {
  if (!loading->damage) loading->damage = what;
  return false;
}

static bool no_memory(struct loading *loading) {
  loading->short_of_memory = true;
  return false;
}

static bool read_base(struct loading *loading) {
  struct buffer bytes;
  buffer_init(&bytes, 0);
  const enum store_status status = store_read_base(loading->store, loading->stored->id, &bytes);
  attn_status decoded = ATTN_BAD_ARGUMENT;
  if (status == STORE_OK) decoded = kept_base_decode(&loading->base, bytes.data, bytes.length);
  buffer_free(&bytes);
  if (status == STORE_NO_MEMORY || decoded == ATTN_NO_MEMORY) return no_memory(loading);
  return decoded == ATTN_OK || damaged(loading, "its description");
}

static bool decode_tags(struct loading *loading, const struct buffer *bytes,
                        struct row_tags *tags) {
  const enum decoded decoded = row_tags_decode_run(tags, bytes->data, bytes->length);
  if (decoded == DECODING_SHORT_OF_MEMORY) return no_memory(loading);
  return decoded == DECODED || damaged(loading, "the ids of some of its rows");
}

static bool is_fine(struct loading *loading, enum store_status status, const char *what) {
  if (status == STORE_NO_MEMORY) return no_memory(loading);
  return status == STORE_OK || damaged(loading, what);
}

/* Read here, decoded by others meanwhile. */
static bool read_blocks(struct loading *loading, attn_block **blocks) {
  const struct kept_base *base = &loading->base;
  enum store_status status = STORE_OK;
  for (size_t i = 0; i < base->blocks && status == STORE_OK; i++) {
    struct decoding *decoding = decoders_room(loading->decoders);
    if (decoders_failed(loading->decoders)) {
      decoders_give_back(loading->decoders, decoding);
      break;
    }
    decoding->id = loading->stored->id;
    decoding->chunk = base->chunks[i];
    decoding->index = i;
    decoding->shape = base->empty;
    decoding->block = &blocks[i];
    status = store_fetch_chunk(loading->store, decoding->id, decoding->chunk, &decoding->bytes,
                               &decoding->sum);
    if (status == STORE_OK)
      decoders_submit(loading->decoders, decoding);
    else
      decoders_give_back(loading->decoders, decoding);
  }
  /* what was submitted comes before what could not be read */
  const enum store_status decoded = decoders_finish(loading->decoders);
  return is_fine(loading, decoded != STORE_OK ? decoded : status, "some of its rows");
}

static bool read_tags(struct loading *loading, struct row_tags *tags) {
  const struct kept_base *base = &loading->base;
  struct buffer bytes;
  buffer_init(&bytes, 0);
  bool read = true;
  for (size_t i = base->blocks; i < base->count && read; i++) {
    buffer_clear(&bytes);
    const enum store_status status =
        store_read_chunk(loading->store, loading->stored->id, base->chunks[i], &bytes);
    read = is_fine(loading, status, "some of its rows") && decode_tags(loading, &bytes, tags);
  }
  buffer_free(&bytes);
  return read;
}

static bool assemble(struct loading *loading) {
  const struct kept_base *base = &loading->base;
  struct memory parts = {.name = loading->stored->name,
                         .version = loading->stored->base_version,
                         .score = base->score,
                         .normalization = base->normalization,
                         .ttl_ms = base->ttl_ms};
  attn_block **blocks = calloc(base->blocks > 0 ? base->blocks : 1, sizeof(attn_block *));
  parts.tags = base->count > base->blocks ? row_tags_create() : NULL;
  bool made = blocks && (parts.tags || base->count == base->blocks);
  if (!made) no_memory(loading);
  made = made && read_blocks(loading, blocks) && read_tags(loading, parts.tags);
  if (made && attn_snapshot_assemble(&parts.snapshot, base->empty, blocks, base->blocks) != ATTN_OK)
    made = no_memory(loading);
  if (made && parts.tags && row_tags_rows(parts.tags) != attn_snapshot_rows(parts.snapshot))
    made = damaged(loading, "the ids of its rows");
  if (made) {
    loading->state.memory = memory_create(&parts);
    made = loading->state.memory || no_memory(loading);
  }
  for (size_t i = 0; blocks && i < base->blocks; i++)
    attn_block_free(blocks[i]);
  free(blocks);
  attn_snapshot_free(parts.snapshot);
  row_tags_free(parts.tags);
  return made;
}

/* Appended rows are gathered here as well, or a log of many small appends would
 * copy the last block for each of them. */
static bool replay(void *context, int64_t version, const void *data, size_t size) {
  struct loading *loading = context;
  struct tip_state *state = &loading->state;
  struct change change;
  attn_status status = change_decode(&change, attn_snapshot_key_dim(loading->base.empty),
                                     attn_snapshot_value_dim(loading->base.empty), data, size);
  if (status == ATTN_OK) {
    state->change_bytes += size;
    status = !change.receipt.key || receipts_add(&loading->tip->receipts, &change.receipt)
                 ? tip_replay(loading->tip, state, &change, version)
                 : ATTN_NO_MEMORY;
    change_clear(&change);
  }
  if (status == ATTN_NO_MEMORY) return no_memory(loading);
  return status == ATTN_OK || damaged(loading, "a change");
}

static bool read_changes(struct loading *loading) {
  const enum store_status status =
      store_read_changes(loading->store, loading->stored->id, replay, loading);
  if (!is_fine(loading, status, "a change")) return false;
  if (loading->damage || loading->short_of_memory) return false;
  if (tip_replay(loading->tip, &loading->state, NULL, loading->state.version) != ATTN_OK)
    return no_memory(loading);
  return loading->state.version == loading->stored->version ||
         damaged(loading, "the newest of its changes");
}

/* A fold that did not come to its end may have left chunks above those of the
 * base. */
static bool find_room(struct loading *loading) {
  int64_t last;
  const enum store_status status = store_last_chunk(loading->store, loading->stored->id, &last);
  if (status == STORE_NO_MEMORY) return no_memory(loading);
  if (status != STORE_OK || last == INT64_MAX) return damaged(loading, "the list of the parts");
  loading->state.place.next_chunk = last + 1;
  return true;
}

/* In the place of a memory that can't be read. */
static struct memory *placeholder(const struct loading *loading) {
  char reason[256];
  snprintf(reason, sizeof reason, "the store can't read %s of the memory \"%s\": it is damaged",
           loading->damage, loading->stored->name);
  struct memory parts = {
      .name = loading->stored->name, .version = loading->stored->version, .damaged = reason};
  struct memory *made = NULL;
  if (attn_snapshot_create(&parts.snapshot, 1, 1) == ATTN_OK &&
      attn_score_create(&parts.score, "dot", NULL, 0, NULL) == ATTN_OK &&
      attn_normalization_create(&parts.normalization, "softmax", NULL, 0, NULL) == ATTN_OK)
    made = memory_create(&parts);
  attn_snapshot_free(parts.snapshot);
  attn_score_free(parts.score);
  attn_normalization_free(parts.normalization);
  return made;
}

bool load_tip(struct tip *tip, const struct loader *loader, const struct store_memory *stored) {
  struct store *store = loader->store;
  struct loading loading = {
      .tip = tip, .store = store, .decoders = loader->decoders, .stored = stored};
  struct tip_state *state = &loading.state;
  const struct kept_place place = {.store = store, .id = stored->id, .next_chunk = 1};
  state->place = place;
  bool read = read_base(&loading) && assemble(&loading);
  if (read) {
    tip->receipts = loading.base.receipts;
    loading.base.receipts = (struct receipts){.count = 0};
    state->version = state->base_version = stored->base_version;
    state->kept = kept_create(state->memory);
    state->kept_of = memory_ref(state->memory);
    if (state->kept) kept_take_over(state->kept, loading.base.chunks, loading.base.count);
    read = (state->kept || no_memory(&loading)) && find_room(&loading) && read_changes(&loading);
  }
  kept_base_clear(&loading.base);
  if (!read && !loading.short_of_memory) {
    tip_discard(tip, state);
    state->place = place;
    state->version = stored->version;
    state->memory = placeholder(&loading);
    read = state->memory != NULL;
  }
  if (read)
    tip_adopt(tip, state, loader->budget);
  else
    tip_discard(tip, state);
  return read;
}
