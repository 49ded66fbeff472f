/* Appended rows, side by side until the memory takes them.
 *
 * Thirty-two clients that append a row each would copy the memory's last block
 * thirty-two times; together they copy it once. lib/memory/edit.c promises that this
 * gives the same blocks as one by one, in whatever groups, which is what a
 * restart makes of the changes on the disk.
 *
 * Whoever puts rows with ids has to know whether one of the ids is gathered
 * already. The table for that is made when it is first asked for, since a
 * restart, which gathers too, never asks. */
#include "engine/gathered.h"

#include <stdlib.h>
#include <string.h>

bool gathered_fits(const struct gathered *gathered, bool with_ids) {
  return gathered->rows == 0 || (gathered->ids != NULL) == with_ids;
}

static bool add_ids(struct gathered *gathered, const struct id_list *ids) {
  if (!gathered->ids) gathered->ids = id_list_create();
  bool added = gathered->ids != NULL;
  for (size_t i = 0; added && i < id_list_count(ids); i++) {
    size_t length;
    const char *id = id_list_get(ids, i, &length);
    added = id_list_append(gathered->ids, id, length);
  }
  return added;
}

bool gathered_add(struct gathered *gathered, const struct gathered_rows *rows) {
  const size_t number = sizeof(float);
  bool added =
      (!rows->ids || add_ids(gathered, rows->ids)) &&
      buffer_append(&gathered->keys, rows->keys, rows->rows * rows->key_dim * number) &&
      buffer_append(&gathered->values, rows->values, rows->rows * rows->value_dim * number);
  for (size_t i = 0; added && i < rows->rows; i++) {
    const int64_t expiry = rows->expiries ? rows->expiries[i] : NEVER_EXPIRES;
    added = buffer_append(&gathered->expiries, &expiry, sizeof expiry);
  }
  gathered->expire |= rows->expiries != NULL;
  gathered->rows += added ? rows->rows : 0;
  return added;
}

struct change gathered_change(const struct gathered *gathered) {
  const void *keys = gathered->keys.data, *values = gathered->values.data;
  const void *expiries = gathered->expiries.data;
  return (struct change){
      .rows = {.added_keys = keys, .added_values = values, .added_count = gathered->rows},
      .added_ids = gathered->ids,
      .added_expiries = gathered->expire ? expiries : NULL};
}

/* ---- The table of ids ---- */

static size_t slot_of(const struct gathered *gathered, const char *id, size_t length) {
  const size_t mask = gathered->slot_count - 1;
  size_t at = (size_t)keyed_hash(gathered->key, id, length) & mask;
  for (; gathered->slots[at] != 0; at = (at + 1) & mask) {
    size_t other_length;
    const char *other = id_list_get(gathered->ids, gathered->slots[at] - 1, &other_length);
    if (length == other_length && memcmp(id, other, length) == 0) break;
  }
  return at;
}

/* Half full at the most. */
static bool make_room(struct gathered *gathered, size_t count) {
  size_t size = gathered->slot_count > 0 ? gathered->slot_count : 64;
  while (size < 2 * count)
    size *= 2;
  if (size == gathered->slot_count) return true;
  uint32_t *slots = count < UINT32_MAX ? calloc(size, sizeof *slots) : NULL;
  if (!slots) return false;
  if (gathered->slot_count == 0) gathered->key = hash_key_random();
  free(gathered->slots);
  gathered->slots = slots;
  gathered->slot_count = size;
  gathered->indexed = 0;
  return true;
}

static bool index_ids(struct gathered *gathered) {
  const size_t count = id_list_count(gathered->ids);
  if (!make_room(gathered, count)) return false;
  for (; gathered->indexed < count; gathered->indexed++) {
    size_t length;
    const char *id = id_list_get(gathered->ids, gathered->indexed, &length);
    gathered->slots[slot_of(gathered, id, length)] = (uint32_t)gathered->indexed + 1;
  }
  return true;
}

bool gathered_meets(struct gathered *gathered, const struct id_list *ids) {
  if (id_list_count(gathered->ids) == 0) return false;
  if (!index_ids(gathered)) return true;
  for (size_t i = 0; i < id_list_count(ids); i++) {
    size_t length;
    const char *id = id_list_get(ids, i, &length);
    if (gathered->slots[slot_of(gathered, id, length)] != 0) return true;
  }
  return false;
}

/* The buffers go as well: they may be large, and there are many memories. */
void gathered_clear(struct gathered *gathered) {
  buffer_free(&gathered->keys);
  buffer_free(&gathered->values);
  buffer_free(&gathered->expiries);
  id_list_free(gathered->ids);
  free(gathered->slots);
  *gathered = (struct gathered){.rows = 0};
}
