/* Changes, applied and as bytes.
 *
 * The record of a change names rows by number, not by id: it is written after
 * the writer has found out where they are, and replayed on the very version
 * that it was made for. So replaying needs no look-up, can't come out
 * differently, and gives the same blocks in the same order (lib/memory/edit.c says
 * why), thus bit-equal answers.
 *
 *   change    kind bits, then for each bit what it announces, in this order
 *     ROWS      removed, replaced and added rows, with their numbers, ids, times
 *     SETTINGS  score, normalization, time to live
 *     RECEIPT   of an append with an Idempotency-Key */
#include "engine/change.h"

#include <stdlib.h>
#include <string.h>

enum { HAS_ROWS = 1, HAS_SETTINGS = 2, HAS_RECEIPT = 4 };
enum { HAS_IDS = 1, HAS_ADDED_EXPIRIES = 2, HAS_REPLACED_EXPIRIES = 4 };

/* ---- Applying ---- */

static bool has_rows(const struct change *change) {
  return change->rows.removed_count + change->rows.replaced_count + change->rows.added_count > 0;
}

attn_status change_apply(struct memory **after, const struct memory *before,
                         const struct change *change, int64_t version) {
  struct memory parts = *before;
  attn_status status = ATTN_OK;
  parts.version = version;
  parts.damaged = NULL;
  parts.snapshot = NULL;
  parts.tags = NULL;
  if (change->settles) {
    parts.score = change->score;
    parts.normalization = change->normalization;
    parts.ttl_ms = change->ttl_ms;
  }
  if (has_rows(change)) {
    const attn_edit *rows = &change->rows;
    const struct tags_edit tags = {.removed = rows->removed,
                                   .removed_count = rows->removed_count,
                                   .replaced = rows->replaced,
                                   .replaced_count = rows->replaced_count,
                                   .replaced_expiries = change->replaced_expiries,
                                   .added_count = rows->added_count,
                                   .added_ids = change->added_ids,
                                   .added_expiries = change->added_expiries};
    status = attn_snapshot_edit(&parts.snapshot, before->snapshot, rows);
    if (status == ATTN_OK &&
        !row_tags_edit(&parts.tags, before->tags, attn_snapshot_rows(before->snapshot), &tags))
      status = ATTN_NO_MEMORY;
  } else {
    parts.snapshot = attn_snapshot_ref(before->snapshot);
    parts.tags = row_tags_ref(before->tags);
  }
  if (status == ATTN_OK) {
    *after = memory_create(&parts);
    if (!*after) status = ATTN_NO_MEMORY;
  }
  attn_snapshot_free(parts.snapshot);
  row_tags_free(parts.tags);
  return status;
}

/* ---- Settings ---- */

static void put_argument(struct buffer *out, const attn_argument *argument) {
  bytes_put_text(out, argument->name, strlen(argument->name));
  bytes_put_u8(out, argument->data != NULL);
  if (!argument->data) {
    bytes_put_double(out, argument->number);
    return;
  }
  bytes_put_u64(out, argument->rows);
  bytes_put_u64(out, argument->cols);
  bytes_put_floats(out, argument->data, argument->rows * argument->cols);
}

/* A top_k that isn't set is not an argument. */
static bool is_set(const attn_param_info *info, const attn_argument *argument) {
  return argument->data || info->kind != ATTN_PARAM_COUNT || argument->number > 0;
}

void settings_encode(const attn_score *score, const attn_normalization *normalization,
                     int64_t ttl_ms, size_t key_dim, struct buffer *out) {
  const attn_score_info *score_info = attn_score_get_info(score);
  const attn_normalization_info *norm_info = attn_normalization_get_info(normalization);
  bytes_put_text(out, score_info->name, strlen(score_info->name));
  bytes_put_u64(out, score_info->param_count);
  for (size_t i = 0; i < score_info->param_count; i++) {
    const attn_argument argument = attn_score_get_argument(score, i, key_dim);
    put_argument(out, &argument);
  }
  size_t count = 0;
  for (size_t i = 0; i < norm_info->param_count; i++) {
    const attn_argument argument = attn_normalization_get_argument(normalization, i);
    count += is_set(&norm_info->params[i], &argument);
  }
  bytes_put_text(out, norm_info->name, strlen(norm_info->name));
  bytes_put_u64(out, count);
  for (size_t i = 0; i < norm_info->param_count; i++) {
    const attn_argument argument = attn_normalization_get_argument(normalization, i);
    if (is_set(&norm_info->params[i], &argument)) put_argument(out, &argument);
  }
  bytes_put_i64(out, ttl_ms);
}

enum { MOST_ARGUMENTS = ATTN_PARAMS_MAX, NAME_MAX_BYTES = 32 };

/* Added to a time of today it stays within what times can say. */
#define MOST_TTL_MS (INT64_MAX / 2)

/* Arguments as the library takes them; `data` and `names` are ours. */
struct arguments {
  attn_argument items[MOST_ARGUMENTS];
  char names[MOST_ARGUMENTS][NAME_MAX_BYTES];
  float *data[MOST_ARGUMENTS];
  size_t count;
};

static bool get_name(struct byte_reader *reader, char name[NAME_MAX_BYTES]) {
  size_t length;
  const char *text = bytes_get_text(reader, &length);
  if (!text || length >= NAME_MAX_BYTES || memchr(text, '\0', length)) return false;
  memcpy(name, text, length);
  name[length] = '\0';
  return true;
}

static bool get_argument(struct byte_reader *reader, struct arguments *arguments) {
  const size_t at = arguments->count;
  attn_argument *item = &arguments->items[at];
  if (!get_name(reader, arguments->names[at])) return false;
  *item = (attn_argument){.name = arguments->names[at]};
  arguments->count++;
  if (bytes_get_u8(reader) == 0) {
    item->number = bytes_get_double(reader);
    return !reader->failed;
  }
  item->rows = bytes_get_count(reader, sizeof(float));
  item->cols = bytes_get_count(reader, sizeof(float));
  size_t numbers;
  if (reader->failed || __builtin_mul_overflow(item->rows, item->cols, &numbers) ||
      numbers > reader->left / sizeof(float))
    return false;
  arguments->data[at] = bytes_room(reader, numbers * sizeof(float));
  item->data = arguments->data[at];
  return arguments->data[at] && bytes_get_floats(reader, arguments->data[at], numbers);
}

static bool get_arguments(struct byte_reader *reader, struct arguments *arguments) {
  const uint64_t count = bytes_get_u64(reader);
  *arguments = (struct arguments){.count = 0};
  if (reader->failed || count > MOST_ARGUMENTS) return false;
  for (uint64_t i = 0; i < count; i++)
    if (!get_argument(reader, arguments)) return false;
  return true;
}

static void arguments_free(struct arguments *arguments) {
  for (size_t i = 0; i < MOST_ARGUMENTS; i++)
    free(arguments->data[i]);
}

/* The library's word on what was read; lack of memory is not the bytes' fault. */
static bool made(struct byte_reader *reader, attn_status status) {
  if (status == ATTN_NO_MEMORY) reader->short_of_memory = true;
  return status == ATTN_OK;
}

static bool get_score(struct byte_reader *reader, attn_score **score) {
  char name[NAME_MAX_BYTES];
  struct arguments arguments = {.count = 0};
  const bool read =
      get_name(reader, name) && get_arguments(reader, &arguments) &&
      made(reader, attn_score_create(score, name, arguments.items, arguments.count, NULL));
  arguments_free(&arguments);
  return read;
}

static bool get_normalization(struct byte_reader *reader, attn_normalization **normalization) {
  char name[NAME_MAX_BYTES];
  struct arguments arguments = {.count = 0};
  const bool read = get_name(reader, name) && get_arguments(reader, &arguments) &&
                    made(reader, attn_normalization_create(normalization, name, arguments.items,
                                                           arguments.count, NULL));
  arguments_free(&arguments);
  return read;
}

bool settings_decode(struct byte_reader *reader, attn_score **score,
                     attn_normalization **normalization, int64_t *ttl_ms) {
  *score = NULL;
  *normalization = NULL;
  bool read = get_score(reader, score) && get_normalization(reader, normalization);
  *ttl_ms = bytes_get_i64(reader);
  read = read && !reader->failed && *ttl_ms >= 0 && *ttl_ms <= MOST_TTL_MS;
  if (read) return true;
  attn_score_free(*score);
  attn_normalization_free(*normalization);
  *score = NULL;
  *normalization = NULL;
  return false;
}

/* ---- Receipts ---- */

void receipt_encode(const struct append_receipt *receipt, struct buffer *out) {
  bytes_put_text(out, receipt->key, strlen(receipt->key));
  bytes_put_u64(out, receipt->fingerprint);
  bytes_put_i64(out, receipt->version);
  bytes_put_u64(out, receipt->rows);
  bytes_put_u64(out, receipt->inserted);
  bytes_put_u64(out, receipt->updated);
}

bool receipt_decode(struct byte_reader *reader, struct append_receipt *receipt) {
  size_t length;
  const char *key = bytes_get_text(reader, &length);
  receipt->key = NULL;
  if (key && !memchr(key, '\0', length)) receipt->key = bytes_room(reader, length + 1);
  if (receipt->key) {
    memcpy(receipt->key, key, length);
    receipt->key[length] = '\0';
  }
  receipt->fingerprint = bytes_get_u64(reader);
  receipt->version = bytes_get_i64(reader);
  receipt->rows = bytes_get_u64(reader);
  receipt->inserted = bytes_get_u64(reader);
  receipt->updated = bytes_get_u64(reader);
  if (receipt->key && !reader->failed) return true;
  free(receipt->key);
  receipt->key = NULL;
  return false;
}

/* ---- Rows ---- */

static void put_numbers(struct buffer *out, const size_t *numbers, size_t count) {
  bytes_put_u64(out, count);
  for (size_t i = 0; i < count; i++)
    bytes_put_u64(out, numbers[i]);
}

static void put_times(struct buffer *out, const int64_t *times, size_t count) {
  for (size_t i = 0; times && i < count; i++)
    bytes_put_i64(out, times[i]);
}

static void put_rows(struct buffer *out, const struct change *change, size_t key_dim,
                     size_t value_dim) {
  const attn_edit *rows = &change->rows;
  put_numbers(out, rows->removed, rows->removed_count);
  put_numbers(out, rows->replaced, rows->replaced_count);
  bytes_put_u64(out, rows->added_count);
  bytes_put_u8(out, (uint8_t)((change->added_ids ? HAS_IDS : 0) |
                              (change->added_expiries ? HAS_ADDED_EXPIRIES : 0) |
                              (change->replaced_expiries ? HAS_REPLACED_EXPIRIES : 0)));
  bytes_put_floats(out, rows->replaced_keys, rows->replaced_count * key_dim);
  bytes_put_floats(out, rows->replaced_values, rows->replaced_count * value_dim);
  bytes_put_floats(out, rows->added_keys, rows->added_count * key_dim);
  bytes_put_floats(out, rows->added_values, rows->added_count * value_dim);
  for (size_t i = 0; change->added_ids && i < rows->added_count; i++) {
    size_t length;
    const char *id = id_list_get(change->added_ids, i, &length);
    bytes_put_text(out, id, length);
  }
  put_times(out, change->added_expiries, rows->added_count);
  put_times(out, change->replaced_expiries, rows->replaced_count);
}

static bool get_numbers(struct byte_reader *reader, const size_t **numbers, size_t *count) {
  *count = bytes_get_count(reader, sizeof(uint64_t));
  size_t *read = bytes_room(reader, *count * sizeof *read);
  *numbers = read;
  if (!read) return false;
  for (size_t i = 0; i < *count; i++)
    read[i] = (size_t)bytes_get_u64(reader);
  return !reader->failed;
}

static bool get_matrix(struct byte_reader *reader, const float **numbers, size_t rows, size_t dim) {
  size_t count;
  if (__builtin_mul_overflow(rows, dim, &count) || count > reader->left / sizeof(float))
    return false;
  float *read = bytes_room(reader, count * sizeof *read);
  *numbers = read;
  return read && bytes_get_floats(reader, read, count);
}

static bool get_times(struct byte_reader *reader, const int64_t **times, size_t count) {
  if (count > reader->left / sizeof(int64_t)) return false;
  int64_t *read = bytes_room(reader, count * sizeof *read);
  *times = read;
  for (size_t i = 0; read && i < count; i++)
    read[i] = bytes_get_i64(reader);
  return read && !reader->failed;
}

static bool get_ids(struct byte_reader *reader, struct id_list **ids, size_t count) {
  *ids = id_list_create();
  bool room = *ids != NULL;
  for (size_t i = 0; room && i < count; i++) {
    size_t length;
    const char *id = bytes_get_text(reader, &length);
    if (!id || length == 0 || length > ID_LENGTH_MAX) return false;
    room = id_list_append(*ids, id, length);
  }
  if (!room) reader->short_of_memory = true;
  return room;
}

static bool get_rows(struct byte_reader *reader, struct change *change, size_t key_dim,
                     size_t value_dim) {
  attn_edit *rows = &change->rows;
  if (!get_numbers(reader, &rows->removed, &rows->removed_count) ||
      !get_numbers(reader, &rows->replaced, &rows->replaced_count))
    return false;
  rows->added_count = bytes_get_count(reader, (key_dim + value_dim) * sizeof(float));
  const uint8_t flags = bytes_get_u8(reader);
  if (reader->failed || flags > (HAS_IDS | HAS_ADDED_EXPIRIES | HAS_REPLACED_EXPIRIES))
    return false;
  return get_matrix(reader, &rows->replaced_keys, rows->replaced_count, key_dim) &&
         get_matrix(reader, &rows->replaced_values, rows->replaced_count, value_dim) &&
         get_matrix(reader, &rows->added_keys, rows->added_count, key_dim) &&
         get_matrix(reader, &rows->added_values, rows->added_count, value_dim) &&
         (!(flags & HAS_IDS) || get_ids(reader, &change->added_ids, rows->added_count)) &&
         (!(flags & HAS_ADDED_EXPIRIES) ||
          get_times(reader, &change->added_expiries, rows->added_count)) &&
         (!(flags & HAS_REPLACED_EXPIRIES) ||
          get_times(reader, &change->replaced_expiries, rows->replaced_count));
}

/* ---- Changes ---- */

void change_encode(const struct change *change, size_t key_dim, size_t value_dim,
                   struct buffer *out) {
  bytes_put_u8(out,
               (uint8_t)((has_rows(change) ? HAS_ROWS : 0) | (change->settles ? HAS_SETTINGS : 0) |
                         (change->receipt.key ? HAS_RECEIPT : 0)));
  if (has_rows(change)) put_rows(out, change, key_dim, value_dim);
  if (change->settles)
    settings_encode(change->score, change->normalization, change->ttl_ms, key_dim, out);
  if (change->receipt.key) receipt_encode(&change->receipt, out);
}

attn_status read_status(bool read, const struct byte_reader *reader) {
  if (reader->short_of_memory) return ATTN_NO_MEMORY;
  return read ? ATTN_OK : ATTN_BAD_ARGUMENT;
}

attn_status change_decode(struct change *change, size_t key_dim, size_t value_dim, const void *data,
                          size_t size) {
  struct byte_reader reader = bytes_reader(data, size);
  *change = (struct change){.settles = false};
  const uint8_t kinds = bytes_get_u8(&reader);
  bool read = !reader.failed && kinds <= (HAS_ROWS | HAS_SETTINGS | HAS_RECEIPT);
  if (kinds & HAS_ROWS) read = read && get_rows(&reader, change, key_dim, value_dim);
  if (kinds & HAS_SETTINGS) {
    change->settles = true;
    read = read &&
           settings_decode(&reader, &change->score, &change->normalization, &change->ttl_ms) &&
           attn_score_query_dim(change->score, key_dim) > 0;
  }
  if (kinds & HAS_RECEIPT) read = read && receipt_decode(&reader, &change->receipt);
  const attn_status status = read_status(read && bytes_ended(&reader), &reader);
  if (status != ATTN_OK) change_clear(change);
  return status;
}

void change_clear(struct change *change) {
  free((void *)(uintptr_t)change->rows.removed);
  free((void *)(uintptr_t)change->rows.replaced);
  free((void *)(uintptr_t)change->rows.replaced_keys);
  free((void *)(uintptr_t)change->rows.replaced_values);
  free((void *)(uintptr_t)change->rows.added_keys);
  free((void *)(uintptr_t)change->rows.added_values);
  free((void *)(uintptr_t)change->added_expiries);
  free((void *)(uintptr_t)change->replaced_expiries);
  id_list_free(change->added_ids);
  attn_score_free(change->score);
  attn_normalization_free(change->normalization);
  free(change->receipt.key);
  *change = (struct change){.settles = false};
}
