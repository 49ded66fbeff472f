/* One version of a named memory: a name, a version, and counted parts. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "engine/registry.h"

/* The count lies behind what the rest of the server sees. */
struct counted_memory {
  struct memory memory;
  atomic_size_t references;
  char name[];
};

static struct counted_memory *counted(struct memory *memory) {
  return (struct counted_memory *)memory;
}

struct memory *memory_create(const char *name, attn_snapshot *snapshot, struct id_list *ids,
                             attn_score *score, attn_normalization *normalization) {
  const size_t size = strlen(name) + 1;
  struct counted_memory *made = calloc(1, sizeof *made + size);
  if (!made) return NULL;
  memcpy(made->name, name, size);
  atomic_init(&made->references, 1);
  made->memory = (struct memory){.name = made->name,
                                 .snapshot = attn_snapshot_ref(snapshot),
                                 .ids = id_list_ref(ids),
                                 .score = attn_score_ref(score),
                                 .normalization = attn_normalization_ref(normalization)};
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
  id_list_free(memory->ids);
  attn_score_free(memory->score);
  attn_normalization_free(memory->normalization);
  free(memory);
}

size_t memory_bytes(const struct memory *memory) {
  return attn_snapshot_bytes(memory->snapshot) + id_list_bytes(memory->ids);
}
