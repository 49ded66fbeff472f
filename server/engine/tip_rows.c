/* Writes to the rows of a memory: rows are appended, put in the place of others
 * by their ids, removed by their ids, or because their time has come. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/tip_private.h"

/* A write's rows expire together: the first one's time says whether they do. */
static const int64_t *times(const int64_t *expiries) {
  return expiries[0] == NEVER_EXPIRES ? NULL : expiries;
}

static bool check_range(const float *numbers, size_t rows, size_t dim, double largest,
                        const char *member, struct write *write) {
  for (size_t i = 0; i < rows * dim; i++)
    if (!(fabs((double)numbers[i]) <= largest)) {
      char pointer[PROBLEM_POINTER_MAX];
      snprintf(pointer, sizeof pointer, "/%s/%zu/%zu", member, i / dim, i % dim);
      write->failed = true;
      return problem_set(&write->problem, PROBLEM_INVALID_NUMBER, pointer,
                         "%g is beyond the memory's dtype, which goes to %g", (double)numbers[i],
                         largest);
    }
  return true;
}

static bool check_rows(const struct tip *tip, struct write *write) {
  const size_t key_dim = tip_key_dim(tip), value_dim = tip_value_dim(tip);
  char detail[PROBLEM_DETAIL_MAX];
  if (write->key_dim != key_dim) {
    snprintf(detail, sizeof detail, "row 0 has %zu components, the memory's keys have %zu",
             write->key_dim, key_dim);
    return tip_refuse(write, PROBLEM_SHAPE_MISMATCH, "/keys/0", detail);
  }
  if (write->value_dim != value_dim) {
    snprintf(detail, sizeof detail, "row 0 has %zu components, the memory's values have %zu",
             write->value_dim, value_dim);
    return tip_refuse(write, PROBLEM_SHAPE_MISMATCH, "/values/0", detail);
  }
  const double largest =
      attn_dtype_info_at((size_t)attn_snapshot_dtype(tip->now.memory->snapshot))->largest;
  return check_range(write->keys, write->rows, key_dim, largest, "keys", write) &&
         check_range(write->values, write->rows, value_dim, largest, "values", write);
}

/* So many rows of the write are new: within the limits, and their RAM reserved.
 * Those that replace others take no more than is there. */
static bool admit(struct tip *tip, struct write *write, size_t added, struct tip_context *context) {
  const size_t most = context->max_rows;
  if (added > 0 && (added > most || tip_row_count(tip) > most - added)) {
    char detail[PROBLEM_DETAIL_MAX];
    snprintf(detail, sizeof detail,
             "the memory has %zu rows; %zu more would be beyond the limit of %zu",
             tip_row_count(tip), added, most);
    return tip_refuse(write, PROBLEM_LIMIT_EXCEEDED, "", detail);
  }
  const size_t estimate =
      added * ((write->key_dim + write->value_dim) * sizeof(float) + sizeof(double));
  if (!budget_take(context->budget, estimate, &write->problem)) {
    write->failed = true;
    return false;
  }
  tip->reserved += estimate;
  return true;
}

/* The rows of a write, told apart: those that are there already, in order of
 * rows, and the new ones, in the order of the write. */
struct upsert {
  size_t *rows; /* of each, SIZE_MAX: none */
  struct change change;
  float *numbers;
  size_t *replaced;
};

static int by_row(const void *a, const void *b) {
  const size_t x = **(const size_t *const *)a, y = **(const size_t *const *)b;
  return x < y ? -1 : x > y;
}

static void upsert_free(struct upsert *upsert) {
  free(upsert->rows);
  free(upsert->numbers);
  free(upsert->replaced);
  id_list_free(upsert->change.added_ids);
}

/* Where the next row of a kind goes. */
struct room {
  float *keys, *values;
};

static void put_row(struct room *room, const struct write *write, size_t row) {
  memcpy(room->keys, write->keys + row * write->key_dim, write->key_dim * sizeof(float));
  memcpy(room->values, write->values + row * write->value_dim, write->value_dim * sizeof(float));
  room->keys += write->key_dim;
  room->values += write->value_dim;
}

/* Replaced keys, then replaced values, then those of added rows. */
static bool upsert_fill(struct upsert *upsert, const struct write *write,
                        const size_t *const *places) {
  attn_edit *edit = &upsert->change.rows;
  struct room replaced = {.keys = upsert->numbers,
                          .values = upsert->numbers + edit->replaced_count * write->key_dim};
  struct room added = {.keys = replaced.values + edit->replaced_count * write->value_dim};
  added.values = added.keys + edit->added_count * write->key_dim;
  edit->replaced = upsert->replaced;
  edit->replaced_keys = replaced.keys;
  edit->replaced_values = replaced.values;
  edit->added_keys = added.keys;
  edit->added_values = added.values;
  for (size_t i = 0; i < edit->replaced_count; i++) {
    upsert->replaced[i] = *places[i];
    put_row(&replaced, write, (size_t)(places[i] - upsert->rows));
  }
  for (size_t i = 0; i < write->rows; i++) {
    if (upsert->rows[i] != SIZE_MAX) continue;
    size_t length;
    const char *id = id_list_get(write->ids, i, &length);
    if (!id_list_append(upsert->change.added_ids, id, length)) return false;
    put_row(&added, write, i);
  }
  return true;
}

/* The write as an edit. False: no memory. */
static bool upsert_arrange(struct upsert *upsert, const struct write *write,
                           const int64_t *expiries) {
  attn_edit *edit = &upsert->change.rows;
  const size_t **places = malloc(write->rows * sizeof *places);
  upsert->numbers = malloc(write->rows * (write->key_dim + write->value_dim) * sizeof(float));
  upsert->replaced = malloc(write->rows * sizeof *upsert->replaced);
  upsert->change.added_ids = id_list_create();
  upsert->change.added_expiries = upsert->change.replaced_expiries = times(expiries);
  bool arranged = places && upsert->numbers && upsert->replaced && upsert->change.added_ids;
  if (arranged) {
    for (size_t i = 0; i < write->rows; i++)
      if (upsert->rows[i] != SIZE_MAX) places[edit->replaced_count++] = &upsert->rows[i];
    edit->added_count = write->rows - edit->replaced_count;
    qsort(places, edit->replaced_count, sizeof *places, by_row);
    arranged = upsert_fill(upsert, write, places);
  }
  free(places);
  return arranged;
}

static void answer_rows(const struct tip *tip, struct write *write, size_t updated) {
  write->version = tip->now.version;
  write->total = tip_row_count(tip);
  write->updated = updated;
  write->inserted = write->rows - updated;
}

/* The same append again: answered as it was. True where that is so, or where the
 * key was used for something else. */
static bool answer_again(const struct tip *tip, struct write *write) {
  const struct append_receipt *receipt =
      write->idempotency_key ? receipts_find(&tip->receipts, write->idempotency_key) : NULL;
  if (!receipt) return false;
  if (receipt->fingerprint != write->fingerprint) {
    tip_refuse(
        write, PROBLEM_KEY_REUSED, "",
        "an append with this Idempotency-Key has been done already, and its rows were others");
    return true;
  }
  write->version = receipt->version;
  write->total = (size_t)receipt->rows;
  write->inserted = (size_t)receipt->inserted;
  write->updated = (size_t)receipt->updated;
  return true;
}

/* What goes into the change's record is what a repetition will be told. */
static bool keep_receipt(struct tip *tip, const struct write *write, size_t updated,
                         struct append_receipt *receipt) {
  *receipt = (struct append_receipt){.key = (char *)(uintptr_t)write->idempotency_key,
                                     .fingerprint = write->fingerprint,
                                     .version = tip->now.version + 1,
                                     .rows = tip_row_count(tip) + write->rows - updated,
                                     .inserted = write->rows - updated,
                                     .updated = updated};
  return !receipt->key || receipts_add(&tip->receipts, receipt);
}

static bool append(struct tip *tip, struct write *write, const int64_t *expiries,
                   struct tip_context *context) {
  struct change change = {.rows = {.added_keys = write->keys,
                                   .added_values = write->values,
                                   .added_count = write->rows},
                          .added_ids = write->ids,
                          .added_expiries = times(expiries)};
  if (!keep_receipt(tip, write, 0, &change.receipt)) return tip_short_of_memory(context);
  if (tip_is_large(tip, &change)) return tip_make_change(tip, &change, context);
  if (!tip_gather(tip, &change)) return tip_short_of_memory(context);
  tip->now.version++;
  return tip_put_change(tip, &change, context);
}

static bool upsert(struct tip *tip, struct write *write, const int64_t *expiries,
                   struct tip_context *context) {
  struct upsert upsert = {.rows = malloc(write->rows * sizeof *upsert.rows)};
  if (!upsert.rows || (gathered_meets(&tip->gathered, write->ids) && !tip_gather_in(tip)) ||
      !row_tags_find(tip->now.memory->tags, write->ids, upsert.rows)) {
    free(upsert.rows);
    return tip_short_of_memory(context);
  }
  size_t updated = 0;
  for (size_t i = 0; i < write->rows; i++)
    updated += upsert.rows[i] != SIZE_MAX;
  bool done = admit(tip, write, write->rows - updated, context);
  if (done && updated == 0)
    done = append(tip, write, expiries, context);
  else if (done)
    done = ((tip_gather_in(tip) && upsert_arrange(&upsert, write, expiries) &&
             keep_receipt(tip, write, updated, &upsert.change.receipt)) ||
            tip_short_of_memory(context)) &&
           tip_make_change(tip, &upsert.change, context);
  upsert_free(&upsert);
  if (done) answer_rows(tip, write, updated);
  return done;
}

void tip_rows(struct tip *tip, struct write *write, struct tip_context *context) {
  if (!tip_check_sound(tip, write) || answer_again(tip, write) || !tip_check(tip, write) ||
      !check_rows(tip, write))
    return;
  const int64_t ttl = write->has_ttl ? write->ttl_ms : tip->now.memory->ttl_ms;
  int64_t *expiries = malloc(write->rows * sizeof *expiries);
  if (!expiries) {
    tip_short_of_memory(context);
    return;
  }
  for (size_t i = 0; i < write->rows; i++)
    expiries[i] = ttl > 0 ? context->wall_ms + ttl : NEVER_EXPIRES;
  if (write->ids)
    upsert(tip, write, expiries, context);
  else if (admit(tip, write, write->rows, context) && append(tip, write, expiries, context))
    answer_rows(tip, write, 0);
  free(expiries);
}

static int by_size(const void *a, const void *b) {
  const size_t x = *(const size_t *)a, y = *(const size_t *)b;
  return x < y ? -1 : x > y;
}

void tip_remove(struct tip *tip, struct write *write, struct tip_context *context) {
  if (!tip_check_sound(tip, write) || !tip_check(tip, write)) return;
  const size_t count = id_list_count(write->ids);
  size_t *rows = malloc(count * sizeof *rows), found = 0;
  if (!rows || !tip_gather_in(tip) || !row_tags_find(tip->now.memory->tags, write->ids, rows)) {
    free(rows);
    tip_short_of_memory(context);
    return;
  }
  for (size_t i = 0; i < count; i++)
    if (rows[i] != SIZE_MAX) rows[found++] = rows[i];
  qsort(rows, found, sizeof *rows, by_size);
  const struct change change = {.rows = {.removed = rows, .removed_count = found}};
  if (found == 0 || tip_make_change(tip, &change, context)) {
    write->version = tip->now.version;
    write->total = tip_row_count(tip);
    write->deleted = found;
  }
  free(rows);
}

void tip_expire(struct tip *tip, struct tip_context *context) {
  size_t count;
  if (!tip_gather_in(tip)) {
    tip_short_of_memory(context);
    return;
  }
  size_t *rows = row_tags_expired(tip->now.memory->tags, context->wall_ms, &count);
  const struct change change = {.rows = {.removed = rows, .removed_count = count}};
  if (!rows)
    tip_short_of_memory(context);
  else if (count > 0)
    tip_make_change(tip, &change, context);
  free(rows);
}
