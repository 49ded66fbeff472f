/* The ids lie one behind the other in `arena`, each with a NUL after it so
 * that it is a C string too; offsets[i] is where id i starts and offsets[count]
 * where the next one will. Both arrays grow geometrically.
 *
 * Threads: the maker appends, alone; from the first id_list_ref() on the list
 * does not change, and only the atomic reference count is written to.
 *
 * Duplicates are found with a scratch table under a fresh random key, because
 * the ids are a client's choice: under a hash that can be foreseen, chosen ids
 * would all meet in one slot and the time grow with the square of their number
 * (see keyed_hash.c). Sorting was rejected: as safe, but slower, and it finds
 * pairs out of the order in which a client wants to hear of them. */
#include "base/id_list.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/keyed_hash.h"

struct id_list {
  atomic_size_t references;
  char *arena;
  size_t arena_capacity;
  size_t *offsets;
  size_t offset_capacity;
  size_t count;
};

struct id_list *id_list_create(void) {
  struct id_list *list = calloc(1, sizeof *list);
  if (list) atomic_init(&list->references, 1);
  return list;
}

struct id_list *id_list_ref(struct id_list *list) {
  if (list) atomic_fetch_add_explicit(&list->references, 1, memory_order_relaxed);
  return list;
}

void id_list_free(struct id_list *list) {
  if (!list || atomic_fetch_sub_explicit(&list->references, 1, memory_order_acq_rel) != 1) return;
  free(list->arena);
  free(list->offsets);
  free(list);
}

/* Room for `needed` items of `size` bytes; doubles at least. */
static bool grow(void **items, size_t *capacity, size_t needed, size_t size) {
  if (needed <= *capacity) return true;
  size_t most = SIZE_MAX / 2 / size;
  if (needed > most) return false;
  size_t larger = *capacity < 16 ? 32 : *capacity * 2;
  if (larger < needed) larger = needed;
  void *moved = realloc(*items, larger * size);
  if (!moved) return false;
  *items = moved;
  *capacity = larger;
  return true;
}

static size_t arena_length(const struct id_list *list) {
  return list->count == 0 ? 0 : list->offsets[list->count];
}

bool id_list_append(struct id_list *list, const char *id, size_t length) {
  assert(atomic_load_explicit(&list->references, memory_order_relaxed) == 1);
  if (length == 0 || length > ID_LENGTH_MAX) return false;
  size_t start = arena_length(list);
  void *arena = list->arena, *offsets = list->offsets;
  bool grown = grow(&arena, &list->arena_capacity, start + length + 1, 1);
  list->arena = arena;
  grown = grown && grow(&offsets, &list->offset_capacity, list->count + 2, sizeof *list->offsets);
  list->offsets = offsets;
  if (!grown) return false;
  memcpy(list->arena + start, id, length);
  list->arena[start + length] = '\0';
  list->offsets[list->count] = start;
  list->offsets[list->count + 1] = start + length + 1;
  list->count++;
  return true;
}

size_t id_list_count(const struct id_list *list) {
  return list ? list->count : 0;
}

const char *id_list_get(const struct id_list *list, size_t index, size_t *length) {
  assert(index < list->count);
  if (length) *length = list->offsets[index + 1] - list->offsets[index] - 1;
  return list->arena + list->offsets[index];
}

size_t id_list_bytes(const struct id_list *list) {
  return list ? sizeof *list + list->arena_capacity + list->offset_capacity * sizeof *list->offsets
              : 0;
}

/* ---- Duplicates ----
 * Open addressing at half load at the most, linear probing. A slot is 0 or the
 * index + 1 in its low bits and the top of the hash above: the tag spares
 * nearly all looks at ids that only share the slot. */
#define INDEX_BITS 40
#define INDEX_MASK (((uint64_t)1 << INDEX_BITS) - 1)

static bool same_id(const struct id_list *list, size_t a, size_t b) {
  size_t a_length, b_length;
  const char *a_id = id_list_get(list, a, &a_length);
  const char *b_id = id_list_get(list, b, &b_length);
  return a_length == b_length && memcmp(a_id, b_id, a_length) == 0;
}

/* Puts id `index` into the table; false where an equal one is there already. */
static bool insert(const struct id_list *list, uint64_t *slots, size_t mask, struct hash_key key,
                   size_t index) {
  size_t length;
  const char *id = id_list_get(list, index, &length);
  uint64_t hash = keyed_hash(key, id, length);
  uint64_t entry = (hash & ~INDEX_MASK) | (index + 1);
  size_t at = (size_t)hash & mask;
  for (; slots[at] != 0; at = (at + 1) & mask) {
    size_t other = (size_t)(slots[at] & INDEX_MASK) - 1;
    if (((slots[at] ^ entry) & ~INDEX_MASK) == 0 && same_id(list, other, index)) return false;
  }
  slots[at] = entry;
  return true;
}

size_t id_list_find_duplicate(const struct id_list *list) {
  size_t count = id_list_count(list);
  if (count < 2) return SIZE_MAX;
  if (count >= INDEX_MASK || count > SIZE_MAX / 4) return SIZE_MAX - 1;
  size_t size = 4;
  while (size < 2 * count)
    size *= 2;
  uint64_t *slots = calloc(size, sizeof *slots);
  if (!slots) return SIZE_MAX - 1;
  struct hash_key key = hash_key_random();
  size_t index = 0;
  while (index < count && insert(list, slots, size - 1, key, index))
    index++;
  free(slots);
  return index < count ? index : SIZE_MAX;
}
