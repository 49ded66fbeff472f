/* The named memories in RAM. */
#ifndef ENGINE_REGISTRY_H
#define ENGINE_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "attention.h"
#include "base/id_list.h"

/* One version of a named memory: immutable once published, counted. */
struct memory {
  const char *name;
  int64_t version;
  attn_snapshot *snapshot;
  struct id_list *ids; /* NULL: rows have none */
  attn_score *score;
  attn_normalization *normalization;
};

/* The parts are shared (a reference is taken of each). NULL: no memory. */
struct memory *memory_create(const char *name, attn_snapshot *snapshot, struct id_list *ids,
                             attn_score *score, attn_normalization *normalization);
struct memory *memory_ref(struct memory *memory);
void memory_free(struct memory *memory); /* drops a reference; accepts NULL */
size_t memory_bytes(const struct memory *memory);

struct registry;

struct registry *registry_create(void);
void registry_free(struct registry *registry);

/* The memory as it is now, held for the caller until memory_free(); NULL where
 * there is none. Takes no lock and never waits. */
struct memory *registry_pin(struct registry *registry, const char *name);

/* All memories in order of their names, each held, in an array that
 * registry_list_free() frees; NULL: no memory. */
struct memory **registry_list(struct registry *registry, size_t *count);
void registry_list_free(struct memory **list, size_t count);

/* Asked while writers wait, with the version there is (0: none): may the change
 * happen? NULL allows all. */
struct registry_condition {
  bool (*holds)(const void *context, int64_t version);
  const void *context;
};

enum registry_result {
  REGISTRY_CREATED,
  REGISTRY_REPLACED,
  REGISTRY_DELETED,
  REGISTRY_ABSENT,  /* nothing of that name to delete */
  REGISTRY_REFUSED, /* the condition did not hold */
  REGISTRY_NO_MEMORY
};

/* Gives `memory` its version and publishes it. On success the registry has the
 * caller's reference; otherwise the caller keeps it. */
enum registry_result registry_put(struct registry *registry, struct memory *memory,
                                  const struct registry_condition *condition);
enum registry_result registry_delete(struct registry *registry, const char *name,
                                     const struct registry_condition *condition);

#endif
