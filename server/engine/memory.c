/* One version of a named memory: a name, a version, and counted parts. */
#include "engine/memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* The count lies behind what the rest of the server sees. */
struct counted_memory {
  struct memory memory;
  atomic_size_t references;
  char text[]; /* the name, then the damage */
};

static struct counted_memory *counted(struct memory *memory) {
  return (struct counted_memory *)memory;
}

struct memory *memory_create(const struct memory *parts) {
  const size_t name = strlen(parts->name) + 1;
  const size_t damage = parts->damaged ? strlen(parts->damaged) + 1 : 0;
  struct counted_memory *made = calloc(1, sizeof *made + name + damage);
  if (!made) return NULL;
  memcpy(made->text, parts->name, name);
  if (parts->damaged) memcpy(made->text + name, parts->damaged, damage);
  atomic_init(&made->references, 1);
  made->memory = (struct memory){.name = made->text,
                                 .version = parts->version,
                                 .snapshot = attn_snapshot_ref(parts->snapshot),
                                 .tags = row_tags_ref(parts->tags),
                                 .score = attn_score_ref(parts->score),
                                 .normalization = attn_normalization_ref(parts->normalization),
                                 .ttl_ms = parts->ttl_ms,
                                 .soonest = row_tags_soonest(parts->tags),
                                 .damaged = parts->damaged ? made->text + name : NULL};
  return &made->memory;
}

struct memory *memory_ref(struct memory *memory) {
  if (memory) atomic_fetch_add_explicit(&counted(memory)->references, 1, memory_order_relaxed);
  return memory;
}

void memory_free(struct memory *memory) {
  if (!memory ||
      atomic_fetch_sub_explicit(&counted(memory)->references, 1, memory_order_acq_rel) > 1)
    return;
  attn_snapshot_free(memory->snapshot);
  row_tags_free(memory->tags);
  attn_score_free(memory->score);
  attn_normalization_free(memory->normalization);
  free(memory);
}

size_t memory_bytes(const struct memory *memory) {
  return attn_snapshot_bytes(memory->snapshot) + row_tags_bytes(memory->tags);
}

struct memory *memory_at_time(struct memory *memory, int64_t now) {
  if (!memory || memory->soonest > now) return memory_ref(memory);
  struct memory *left = NULL, parts = *memory;
  parts.snapshot = NULL;
  parts.tags = NULL;
  size_t count;
  size_t *rows = row_tags_expired(memory->tags, now, &count);
  if (!rows) return NULL;
  const attn_edit edit = {.removed = rows, .removed_count = count};
  const struct tags_edit tags_edit = {.removed = rows, .removed_count = count};
  if (attn_snapshot_edit(&parts.snapshot, memory->snapshot, &edit) == ATTN_OK &&
      row_tags_edit(&parts.tags, memory->tags, attn_snapshot_rows(memory->snapshot), &tags_edit))
    left = memory_create(&parts);
  attn_snapshot_free(parts.snapshot);
  row_tags_free(parts.tags);
  free(rows);
  return left;
}
