/* Bases, chunks and changes, read and checked.
 *
 * The invariant: nothing is handed out whose checksum, versions or place are not
 * what the head says; a caller gets the bytes that were written, or
 * STORE_DAMAGED and nothing of them. A damaged memory is no reason to refuse the
 * others.
 *
 * Errors of reading (a sector that can't be read, a page that is no page) are
 * damage of the memory they were met in. */
#include <stdlib.h>
#include <string.h>

#include "store/store_private.h"

static enum store_status append(struct buffer *out, const void *data, size_t size) {
  return buffer_append(out, data, size) ? STORE_OK : STORE_NO_MEMORY;
}

/* The only blob of the row that `which` gives for `id`. */
static enum store_status read_blob(struct store *store, enum statement which, int64_t id,
                                   struct buffer *out) {
  sqlite3_stmt *statement = statement_get(store, which);
  sqlite3_bind_int64(statement, 1, id);
  int result = sqlite3_step(statement);
  enum store_status status = status_of_reading(result);
  if (status == STORE_OK && result != SQLITE_ROW) status = STORE_DAMAGED;
  if (status == STORE_OK) {
    const void *data = sqlite3_column_blob(statement, 0);
    size_t size = (size_t)sqlite3_column_bytes(statement, 0);
    /* no pointer: no bytes, or the bytes could not be had */
    if (!data && sqlite3_errcode(sqlite3_db_handle(statement)) == SQLITE_NOMEM)
      status = STORE_NO_MEMORY;
    else
      status = append(out, data, data ? size : 0);
  }
  sqlite3_reset(statement);
  return status;
}

/* Takes what was appended back where it isn't what was written. */
static enum store_status checked(enum store_status status, struct buffer *out, size_t before,
                                 uint64_t expected, uint64_t sum) {
  if (status == STORE_OK && sum != expected) status = STORE_DAMAGED;
  if (status != STORE_OK && out->length > before) out->length = before;
  return status;
}

static const char *bytes_at(const struct buffer *buffer, size_t offset) {
  return buffer->length > offset ? buffer->data + offset : "";
}

enum store_status list_read(struct store *store, const struct head *head, struct buffer *out) {
  const size_t before = out->length;
  enum store_status status = read_blob(store, READ_LIST, head->memory.id, out);
  const size_t size = out->length - before;
  if (status == STORE_OK && size % LIST_ENTRY != 0) status = STORE_DAMAGED;
  return checked(status, out, before, head->list_sum,
                 checksum(RECORD_CHUNK_LIST, head->memory.id, head->memory.base_version,
                          bytes_at(out, before), size));
}

static int by_id(const void *key, const void *element) {
  const int64_t id = *(const int64_t *)key, other = ((const struct head *)element)->memory.id;
  return (id > other) - (id < other);
}

/* Whether the memory was found to be damaged when the store was opened. */
static bool known_damaged(const struct store *store, int64_t id) {
  if (store->head_count == 0) return false;
  const struct head *head =
      bsearch(&id, store->heads, store->head_count, sizeof *store->heads, by_id);
  return head && head->damaged;
}

enum store_status store_read_base(struct store *store, int64_t id, struct buffer *out) {
  if (known_damaged(store, id)) return STORE_DAMAGED;
  struct head head;
  enum store_status status = head_read(store, id, &head);
  if (status != STORE_OK) return status;
  const size_t before = out->length;
  status = read_blob(store, READ_BASE, id, out);
  return checked(status, out, before, head.base_sum,
                 checksum(RECORD_BASE, id, head.memory.base_version, bytes_at(out, before),
                          out->length - before));
}

/* A size that the database can't hold comes from a flipped bit, and must not look
 * like a lack of memory. */
static enum store_status check_size(struct store *store, int size) {
  sqlite3_stmt *statement = statement_get(store, COUNT_PAGES);
  const int result = sqlite3_step(statement);
  const int64_t pages = result == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
  sqlite3_reset(statement);
  if (result != SQLITE_ROW) return status_of_reading(result);
  return size / (int64_t)store->page_bytes < pages ? STORE_OK : STORE_DAMAGED;
}

static enum store_status read_opened(sqlite3_blob *blob, int size, struct buffer *out) {
  char *to = buffer_reserve(out, (size_t)size);
  if (!to) return STORE_NO_MEMORY;
  const enum store_status status = status_of_reading(sqlite3_blob_read(blob, to, size, 0));
  if (status == STORE_OK) buffer_advance(out, (size_t)size);
  return status;
}

/* The bytes of the chunk in the row `slot`. As a blob they come straight to where
 * they shall be; as a column they would come to a buffer of SQLite's first. */
static enum store_status read_slot(struct store *store, int64_t slot, struct buffer *out) {
  sqlite3_blob *blob = NULL;
  const int result = sqlite3_blob_open(store->db, "main", "chunk", "data", slot, 0, &blob);
  enum store_status status = status_of_reading(result);
  if (status == STORE_OK) {
    const int size = sqlite3_blob_bytes(blob);
    status = check_size(store, size);
    if (status == STORE_OK) status = read_opened(blob, size, out);
    if (status == STORE_OK) ahead_of(store, (size_t)size);
  }
  sqlite3_blob_close(blob);
  return status;
}

enum store_status store_fetch_chunk(struct store *store, int64_t id, int64_t chunk,
                                    struct buffer *out, uint64_t *sum) {
  if (known_damaged(store, id)) return STORE_DAMAGED;
  connection_set_reading(store, true);
  sqlite3_stmt *statement = statement_get(store, FIND_CHUNK);
  sqlite3_bind_int64(statement, 1, id);
  sqlite3_bind_int64(statement, 2, chunk);
  const int result = sqlite3_step(statement);
  const int64_t slot = result == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
  *sum = result == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(statement, 1) : 0;
  sqlite3_reset(statement);
  if (result != SQLITE_ROW && status_of_reading(result) == STORE_OK) return STORE_DAMAGED;
  return result == SQLITE_ROW ? read_slot(store, slot, out) : status_of_reading(result);
}

bool store_chunk_is_sound(int64_t id, int64_t chunk, uint64_t sum, const struct buffer *bytes) {
  return checksum(RECORD_CHUNK, id, chunk, bytes_at(bytes, 0), bytes->length) == sum;
}

enum store_status store_read_chunk(struct store *store, int64_t id, int64_t chunk,
                                   struct buffer *out) {
  const size_t before = out->length;
  uint64_t sum = 0;
  const enum store_status status = store_fetch_chunk(store, id, chunk, out, &sum);
  return checked(status, out, before, sum,
                 checksum(RECORD_CHUNK, id, chunk, bytes_at(out, before), out->length - before));
}

enum store_status store_last_chunk(struct store *store, int64_t id, int64_t *chunk) {
  sqlite3_stmt *statement = statement_get(store, LAST_CHUNK);
  sqlite3_bind_int64(statement, 1, id);
  const int result = sqlite3_step(statement);
  *chunk = result == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
  sqlite3_reset(statement);
  return status_of_reading(result);
}

/* One change, which has to be of `version`. */
static enum store_status take_row(sqlite3_stmt *statement, int64_t id, int64_t version,
                                  store_take_change *take, void *context, bool *go_on) {
  const void *data = sqlite3_column_blob(statement, 2);
  const size_t size = data ? (size_t)sqlite3_column_bytes(statement, 2) : 0;
  if (!data && sqlite3_errcode(sqlite3_db_handle(statement)) == SQLITE_NOMEM)
    return STORE_NO_MEMORY;
  if (!data) data = "";
  if (sqlite3_column_int64(statement, 0) != version ||
      (uint64_t)sqlite3_column_int64(statement, 1) !=
          checksum(RECORD_CHANGE, id, version, data, size))
    return STORE_DAMAGED;
  *go_on = take(context, version, data, size);
  return STORE_OK;
}

enum store_status store_read_changes(struct store *store, int64_t id, store_take_change *take,
                                     void *context) {
  if (known_damaged(store, id)) return STORE_DAMAGED;
  struct head head;
  enum store_status status = head_read(store, id, &head);
  if (status != STORE_OK) return status;
  sqlite3_stmt *statement = statement_get(store, READ_CHANGES);
  sqlite3_bind_int64(statement, 1, id);
  sqlite3_bind_int64(statement, 2, head.memory.base_version);
  int64_t version = head.memory.base_version;
  bool go_on = true;
  while (status == STORE_OK && go_on) {
    int result = sqlite3_step(statement);
    status = status_of_reading(result);
    if (status != STORE_OK || result != SQLITE_ROW) break;
    status = take_row(statement, id, ++version, take, context, &go_on);
  }
  sqlite3_reset(statement);
  if (status == STORE_OK && go_on && version != head.memory.version) status = STORE_DAMAGED;
  return status;
}
