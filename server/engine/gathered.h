/* Rows that were appended in a batch and are not in the memory yet: many small
 * appends are applied together, as if they had been one. */
#ifndef ENGINE_GATHERED_H
#define ENGINE_GATHERED_H

#include "base/keyed_hash.h"
#include "engine/change.h"

/* Zeroed it is empty. */
struct gathered {
  size_t rows;
  struct buffer keys, values, expiries;
  struct id_list *ids; /* NULL: the rows have none */
  bool expire;         /* some of the rows do */
  /* The ids by hash, as far as somebody has asked: indexes + 1, open addressing. */
  struct hash_key key;
  uint32_t *slots;
  size_t slot_count, indexed;
};

/* Whether rows with ids, or without, can join those that are there. */
bool gathered_fits(const struct gathered *gathered, bool with_ids);

/* Adds rows that fit. False: no memory, and what was gathered is of no use. */
struct gathered_rows {
  const float *keys, *values;
  size_t rows, key_dim, value_dim;
  const struct id_list *ids;
  const int64_t *expiries; /* NULL: never */
};
bool gathered_add(struct gathered *gathered, const struct gathered_rows *rows);

/* Whether one of the ids is among those gathered; true where memory is too short
 * to tell. */
bool gathered_meets(struct gathered *gathered, const struct id_list *ids);

/* The change that appends them; its pointers are into `gathered`. */
struct change gathered_change(const struct gathered *gathered);

void gathered_clear(struct gathered *gathered);

#endif
