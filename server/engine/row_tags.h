/* What rows have besides numbers: an id, and a time at which they expire.
 *
 * The tags of a memory's rows at one version: immutable and counted, made of
 * runs that versions share, so that a change of a few rows costs a few runs and
 * not a copy of a million ids. */
#ifndef ENGINE_ROW_TAGS_H
#define ENGINE_ROW_TAGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/id_list.h"

/* A time that never comes; times are milliseconds of clock_wall_ms(). */
#define NEVER_EXPIRES INT64_MAX

struct row_tags;
struct tag_run; /* neighbouring rows' tags; immutable, counted */

/* Everywhere, NULL stands for rows that have neither ids nor times. */
struct row_tags *row_tags_ref(struct row_tags *tags);
void row_tags_free(struct row_tags *tags); /* drops a reference */

/* The id as a C string; NULL where the row has none. */
const char *row_tags_id(const struct row_tags *tags, size_t row, size_t *length);
int64_t row_tags_expiry(const struct row_tags *tags, size_t row);

bool row_tags_have_ids(const struct row_tags *tags); /* at least one row has */
int64_t row_tags_soonest(const struct row_tags *tags);
size_t row_tags_bytes(const struct row_tags *tags); /* RAM, shared runs in full */

/* The rows of the ids, SIZE_MAX where there is no such row. False: no memory. */
bool row_tags_find(const struct row_tags *tags, const struct id_list *ids, size_t *rows);

/* Rows that expire at `now` or before, ascending, in an array for the caller to
 * free; NULL: no memory. */
size_t *row_tags_expired(const struct row_tags *tags, int64_t now, size_t *count);

/* Like attn_edit, and to be done together with it. */
struct tags_edit {
  const size_t *removed; /* ascending, distinct */
  size_t removed_count;
  const size_t *replaced; /* ascending, distinct; they keep their ids */
  size_t replaced_count;
  const int64_t *replaced_expiries; /* NULL: never */
  size_t added_count;
  const struct id_list *added_ids; /* NULL: none; else one for each */
  const int64_t *added_expiries;   /* NULL: never */
};

/* `rows` is how many there are before; *edited may come to be NULL, and is the
 * caller's. False: no memory. */
bool row_tags_edit(struct row_tags **edited, const struct row_tags *base, size_t rows,
                   const struct tags_edit *edit);

/* ---- As bytes, run by run ---- */

size_t row_tags_run_count(const struct row_tags *tags);
struct tag_run *row_tags_run(const struct row_tags *tags, size_t index); /* borrowed */
struct tag_run *tag_run_ref(struct tag_run *run);
void tag_run_free(struct tag_run *run);
void tag_run_encode(const struct tag_run *run, struct buffer *out);

/* Appends what tag_run_encode() has written to the tags that are being read. */
struct row_tags *row_tags_create(void);
enum decoded { DECODED, NOT_A_RUN, DECODING_SHORT_OF_MEMORY };
enum decoded row_tags_decode_run(struct row_tags *tags, const void *data, size_t size);
size_t row_tags_rows(const struct row_tags *tags);

#endif
