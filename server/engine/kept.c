/* What of a memory is in the store.
 *
 * For each block of the snapshot and each run of tags there is the number of
 * its chunk, 0 where it has none yet. Parts are told apart by their addresses:
 * that is sound as long as the version that the numbers were made for is held,
 * since a shared part is the same one and a held one's address is not used
 * again. So after every published change the numbers follow it (kept_follow),
 * and nothing but the published version has to be held: blocks whose rows are
 * gone give their RAM back, although the store has them until the next fold.
 *
 * Rejected: a serial number in each block, which would be state of the whole
 * process in a library that has none. */
#include "engine/kept.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BASE_FORMAT 1

struct part {
  const void *address;
  int64_t chunk; /* 0: not stored; negative: stored in the transaction under way */
  bool ours;     /* stored by way of this very list */
};

/* The blocks, then the runs of tags. */
struct kept {
  size_t blocks, count;
  struct part parts[];
};

struct kept *kept_create(const struct memory *memory) {
  const size_t blocks = attn_snapshot_block_count(memory->snapshot);
  const size_t runs = row_tags_run_count(memory->tags), count = blocks + runs;
  struct kept *kept = calloc(1, sizeof *kept + count * sizeof(struct part));
  if (!kept) return NULL;
  kept->blocks = blocks;
  kept->count = count;
  for (size_t i = 0; i < blocks; i++)
    kept->parts[i].address = attn_snapshot_block(memory->snapshot, i);
  for (size_t i = 0; i < runs; i++)
    kept->parts[blocks + i].address = row_tags_run(memory->tags, i);
  return kept;
}

void kept_free(struct kept *kept) {
  free(kept);
}

/* ---- Following ---- */

static size_t slot_of(const void *address, size_t mask) {
  return (size_t)((uintptr_t)address / 64 * 0x9E3779B97F4A7C15u >> 20) & mask;
}

/* Parts keep their order from version to version, but a search must not depend
 * on it where many are new: so by a table. A part that occurs twice (the runs of
 * rows without tags) may have two numbers; either will do. */
struct kept *kept_follow(const struct kept *kept, const struct memory *memory) {
  size_t size = 16;
  while (size < 2 * kept->count)
    size *= 2;
  struct kept *made = kept_create(memory);
  size_t *slots = calloc(size, sizeof *slots); /* index + 1 */
  if (!made || !slots) {
    free(made);
    free(slots);
    return NULL;
  }
  for (size_t i = 0; i < kept->count; i++) {
    size_t at = slot_of(kept->parts[i].address, size - 1);
    while (slots[at] != 0)
      at = (at + 1) & (size - 1);
    slots[at] = i + 1;
  }
  for (size_t i = 0; i < made->count; i++) {
    const void *address = made->parts[i].address;
    size_t at = slot_of(address, size - 1);
    while (slots[at] != 0 && kept->parts[slots[at] - 1].address != address)
      at = (at + 1) & (size - 1);
    if (slots[at] != 0) made->parts[i].chunk = kept->parts[slots[at] - 1].chunk;
  }
  free(slots);
  return made;
}

void kept_take_over(struct kept *kept, const int64_t *chunks, size_t count) {
  for (size_t i = 0; i < count && i < kept->count; i++)
    kept->parts[i].chunk = chunks[i];
}

bool kept_take_stored(struct kept *kept, attn_block *const *blocks, const int64_t *chunks,
                      size_t count) {
  bool same = count <= kept->blocks;
  for (size_t i = 0; same && i < count; i++)
    same = kept->parts[i].address == blocks[i];
  for (size_t i = 0; same && i < count; i++) {
    kept->parts[i].chunk = chunks[i];
    kept->parts[i].ours = true;
  }
  return same;
}

/* ---- Storing ---- */

struct kept_place kept_new_place(struct store *store) {
  return (struct kept_place){.store = store, .id = store_new_id(store), .next_chunk = 1};
}

size_t kept_missing_bytes(const struct kept *kept, const struct memory *memory) {
  size_t bytes = 0;
  for (size_t i = 0; i < kept->blocks; i++)
    if (kept->parts[i].chunk == 0)
      bytes += attn_block_encoded_size(memory->snapshot, attn_snapshot_block(memory->snapshot, i));
  return bytes;
}

bool kept_encode_block(const attn_snapshot *shape, const attn_block *block, struct buffer *out) {
  buffer_clear(out);
  const size_t size = attn_block_encoded_size(shape, block);
  char *room = buffer_reserve(out, size);
  if (!room) return false;
  attn_block_encode(shape, block, room);
  buffer_advance(out, size);
  return true;
}

static bool encode_part(const struct kept *kept, const struct memory *memory, size_t index,
                        struct buffer *out) {
  if (index < kept->blocks)
    return kept_encode_block(memory->snapshot, attn_snapshot_block(memory->snapshot, index), out);
  buffer_clear(out);
  tag_run_encode(row_tags_run(memory->tags, index - kept->blocks), out);
  return out->status == BUFFER_OK;
}

enum store_status kept_store(struct kept *kept, struct kept_place *place,
                             const struct memory *memory, size_t most, bool *complete) {
  struct buffer bytes;
  buffer_init(&bytes, 0);
  enum store_status status = STORE_OK;
  size_t stored = 0, i = 0;
  for (; i < kept->count && status == STORE_OK && stored < most; i++) {
    if (kept->parts[i].chunk != 0) continue;
    if (!encode_part(kept, memory, i, &bytes)) {
      status = STORE_NO_MEMORY;
      break;
    }
    status = store_put_chunk(place->store, place->id, place->next_chunk, bytes.data, bytes.length);
    if (status != STORE_OK) break;
    kept->parts[i].chunk = -place->next_chunk++;
    kept->parts[i].ours = true;
    stored += bytes.length;
  }
  *complete = status == STORE_OK && i == kept->count;
  buffer_free(&bytes);
  return status;
}

void kept_settle(struct kept *kept) {
  for (size_t i = 0; i < kept->count; i++)
    if (kept->parts[i].chunk < 0) kept->parts[i].chunk = -kept->parts[i].chunk;
}

void kept_forget(struct kept *kept) {
  for (size_t i = 0; i < kept->count; i++)
    if (kept->parts[i].chunk < 0) kept->parts[i] = (struct part){.address = kept->parts[i].address};
}

void kept_abandon(struct kept *kept, const struct kept_place *place) {
  for (size_t i = 0; i < kept->count; i++) {
    if (!kept->parts[i].ours || kept->parts[i].chunk <= 0) continue;
    store_abandon_chunk(place->store, place->id, kept->parts[i].chunk);
    kept->parts[i] = (struct part){.address = kept->parts[i].address};
  }
}

/* Later ones are in the changes that follow. */
static void put_receipts(const struct receipts *receipts, int64_t version, struct buffer *out) {
  size_t count = 0;
  for (size_t i = receipts->ended; i < receipts->count; i++)
    count += receipts->items[i].version <= version;
  bytes_put_u64(out, count);
  for (size_t i = receipts->ended; i < receipts->count; i++)
    if (receipts->items[i].version <= version) receipt_encode(&receipts->items[i], out);
}

enum store_status kept_put_base(const struct kept *kept, const struct kept_place *place,
                                const struct memory *memory, const struct receipts *receipts) {
  struct buffer bytes;
  buffer_init(&bytes, 0);
  enum store_status status = STORE_NO_MEMORY;
  int64_t *chunks = malloc((kept->count > 0 ? kept->count : 1) * sizeof *chunks);
  if (!chunks) return status;
  for (size_t i = 0; i < kept->count; i++)
    chunks[i] = kept->parts[i].chunk < 0 ? -kept->parts[i].chunk : kept->parts[i].chunk;
  const size_t key_dim = attn_snapshot_key_dim(memory->snapshot);
  bytes_put_u8(&bytes, BASE_FORMAT);
  bytes_put_u64(&bytes, key_dim);
  bytes_put_u64(&bytes, attn_snapshot_value_dim(memory->snapshot));
  bytes_put_u8(&bytes, (uint8_t)attn_snapshot_dtype(memory->snapshot));
  settings_encode(memory->score, memory->normalization, memory->ttl_ms, key_dim, &bytes);
  bytes_put_u64(&bytes, kept->blocks);
  bytes_put_u64(&bytes, kept->count - kept->blocks);
  for (size_t i = 0; i < kept->count; i++)
    bytes_put_i64(&bytes, chunks[i]);
  put_receipts(receipts, memory->version, &bytes);
  if (bytes.status == BUFFER_OK)
    status = store_put_base(place->store, &(struct store_base){.id = place->id,
                                                               .name = memory->name,
                                                               .version = memory->version,
                                                               .chunks = chunks,
                                                               .chunk_count = kept->count,
                                                               .data = bytes.data,
                                                               .size = bytes.length});
  buffer_free(&bytes);
  free(chunks);
  return status;
}

static bool get_shape(struct byte_reader *reader, attn_snapshot **empty) {
  const uint64_t key_dim = bytes_get_u64(reader), value_dim = bytes_get_u64(reader);
  const uint8_t dtype = bytes_get_u8(reader);
  if (reader->failed || key_dim > ATTN_MAX_DIM || value_dim > ATTN_MAX_DIM ||
      !attn_dtype_info_at(dtype))
    return false;
  const attn_status status =
      attn_snapshot_create_typed(empty, key_dim, value_dim, (attn_dtype)dtype);
  if (status == ATTN_NO_MEMORY) reader->short_of_memory = true;
  return status == ATTN_OK;
}

static bool get_chunks(struct byte_reader *reader, struct kept_base *base) {
  const uint64_t blocks = bytes_get_u64(reader), runs = bytes_get_u64(reader);
  const uint64_t most = reader->left / sizeof(int64_t);
  if (reader->failed || blocks > most || runs > most - blocks) return false;
  base->blocks = (size_t)blocks;
  base->count = (size_t)(blocks + runs);
  base->chunks = bytes_room(reader, base->count * sizeof *base->chunks);
  for (size_t i = 0; base->chunks && i < base->count; i++) {
    base->chunks[i] = bytes_get_i64(reader);
    if (base->chunks[i] <= 0) return false;
  }
  return base->chunks != NULL;
}

static bool get_receipts(struct byte_reader *reader, struct receipts *receipts) {
  const size_t count = bytes_get_count(reader, 1);
  for (size_t i = 0; i < count; i++) {
    struct append_receipt receipt;
    if (!receipt_decode(reader, &receipt)) return false;
    const bool added = receipts_add(receipts, &receipt);
    free(receipt.key);
    if (!added) reader->short_of_memory = true;
    if (!added) return false;
  }
  return !reader->failed;
}

attn_status kept_base_decode(struct kept_base *base, const void *data, size_t size) {
  struct byte_reader reader = bytes_reader(data, size);
  *base = (struct kept_base){.empty = NULL};
  const bool read = bytes_get_u8(&reader) == BASE_FORMAT && get_shape(&reader, &base->empty) &&
                    settings_decode(&reader, &base->score, &base->normalization, &base->ttl_ms) &&
                    attn_score_query_dim(base->score, attn_snapshot_key_dim(base->empty)) > 0 &&
                    get_chunks(&reader, base) && get_receipts(&reader, &base->receipts) &&
                    bytes_ended(&reader);
  const attn_status status = read_status(read, &reader);
  if (status != ATTN_OK) kept_base_clear(base);
  return status;
}

void kept_base_clear(struct kept_base *base) {
  attn_snapshot_free(base->empty);
  attn_score_free(base->score);
  attn_normalization_free(base->normalization);
  free(base->chunks);
  receipts_clear(&base->receipts);
  *base = (struct kept_base){.empty = NULL};
}
