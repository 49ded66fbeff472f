/* Bases, chunks and changes, written.
 *
 * The invariants: what a head says and what is there change in one transaction;
 * a chunk and a change are written once and never again; a base names only chunks
 * that are there, with their checksums, so that its list vouches for their bytes.
 *
 * Nothing large is removed here. What a write leaves unnamed is queued, and
 * store_sweep() removes it in portions, so that dropping a memory of gigabytes
 * takes no longer than dropping a small one. */
#include <stdlib.h>
#include <string.h>

#include "store/store_private.h"

/* Whether an id has a chunk of that number. The index is no help: it has the
 * checksum too, and holds two chunks that differ to be two. */
static int find_chunk(struct store *store, int64_t id, int64_t chunk, bool *found) {
  sqlite3_stmt *statement = statement_get(store, NEXT_CHUNK);
  sqlite3_bind_int64(statement, 1, id);
  sqlite3_bind_int64(statement, 2, chunk - 1);
  int result = sqlite3_step(statement);
  *found = result == SQLITE_ROW && sqlite3_column_int64(statement, 0) == chunk;
  sqlite3_reset(statement);
  return result == SQLITE_ROW || result == SQLITE_DONE ? SQLITE_OK : result;
}

enum store_status store_put_chunk(struct store *store, int64_t id, int64_t chunk, const void *data,
                                  size_t size) {
  if (transaction_write(store, true) != STORE_OK) return transaction_check(store);
  bool found;
  int result = find_chunk(store, id, chunk, &found);
  if (result != SQLITE_OK) return transaction_fail(store, result);
  if (found) return transaction_end(store, STORE_DAMAGED);
  sqlite3_stmt *statement = statement_get(store, WRITE_CHUNK);
  result = bind_blob(statement, 4, data, size);
  sqlite3_bind_int64(statement, 1, id);
  sqlite3_bind_int64(statement, 2, chunk);
  sqlite3_bind_int64(statement, 3,
                     (int64_t)checksum(RECORD_CHUNK, id, chunk, size ? data : "", size));
  if (result == SQLITE_OK) result = statement_run(statement);
  store->chunk_bytes += size;
  if (result != SQLITE_OK) return transaction_fail(store, result);
  flow_chunk(store, size);
  return STORE_OK;
}

/* ---- Lists of chunks ---- */

static bool append_entry(struct buffer *list, int64_t chunk, uint64_t sum) {
  unsigned char entry[LIST_ENTRY];
  bytes_store_u64(entry, (uint64_t)chunk);
  bytes_store_u64(entry + 8, sum);
  return buffer_append(list, entry, sizeof entry);
}

/* The chunks that an id has, in order, as a list. */
static int list_of_chunks(struct store *store, int64_t id, struct buffer *list) {
  sqlite3_stmt *statement = statement_get(store, CHUNKS_OF);
  sqlite3_bind_int64(statement, 1, id);
  int result;
  while ((result = sqlite3_step(statement)) == SQLITE_ROW)
    if (!append_entry(list, sqlite3_column_int64(statement, 0),
                      (uint64_t)sqlite3_column_int64(statement, 1)))
      result = SQLITE_NOMEM;
  sqlite3_reset(statement);
  if (list->status != BUFFER_OK) return SQLITE_NOMEM;
  return result == SQLITE_DONE ? SQLITE_OK : result;
}

static const void *find_entry(const struct buffer *sorted, int64_t chunk) {
  unsigned char key[LIST_ENTRY] = {0};
  bytes_store_u64(key, (uint64_t)chunk);
  if (sorted->length == 0) return NULL;
  return bsearch(key, sorted->data, sorted->length / LIST_ENTRY, LIST_ENTRY, list_compare);
}

/* The list of the base, in its order, out of the chunks that are there. */
static enum store_status name_chunks(const struct store_base *base, const struct buffer *there,
                                     struct buffer *list) {
  for (size_t i = 0; i < base->chunk_count; i++) {
    const void *entry = find_entry(there, base->chunks[i]);
    if (!entry) return STORE_DAMAGED;
    if (!buffer_append(list, entry, LIST_ENTRY)) return STORE_NO_MEMORY;
  }
  return STORE_OK;
}

/* Queues the chunks of the base before that the new one doesn't name. A base
 * whose list can't be read leaves them to the next opening. */
static enum store_status queue_unnamed(struct store *store, const struct head *before,
                                       const struct buffer *list) {
  struct buffer old, sorted;
  buffer_init(&old, 0);
  buffer_init(&sorted, 0);
  enum store_status status = list_read(store, before, &old);
  if (status == STORE_DAMAGED) {
    status = STORE_OK;
  } else if (status == STORE_OK) {
    if (!buffer_append(&sorted, list->data, list->length)) status = STORE_NO_MEMORY;
    if (sorted.length > 0) qsort(sorted.data, sorted.length / LIST_ENTRY, LIST_ENTRY, list_compare);
    for (size_t i = 0; status == STORE_OK && i < old.length / LIST_ENTRY; i++) {
      const int64_t chunk = list_chunk(old.data, i);
      const struct garbage item = {.id = before->memory.id, .chunk = chunk};
      if (!find_entry(&sorted, chunk) && !garbage_add(&store->garbage, item))
        status = STORE_NO_MEMORY;
    }
  }
  buffer_free(&old);
  buffer_free(&sorted);
  return status;
}

/* ---- Bases and changes ---- */

static int write_base(struct store *store, const struct store_base *base,
                      const struct buffer *list) {
  sqlite3_stmt *statement = statement_get(store, WRITE_BASE);
  sqlite3_bind_int64(statement, 1, base->id);
  int result = bind_blob(statement, 2, list->data, list->length);
  if (result == SQLITE_OK) result = bind_blob(statement, 3, base->data, base->size);
  return result == SQLITE_OK ? statement_run(statement) : result;
}

/* Whether there is a head; STORE_DAMAGED where it can't be told. */
static enum store_status head_find(struct store *store, int64_t id, struct head *head,
                                   bool *found) {
  sqlite3_stmt *statement = statement_get(store, READ_HEAD);
  sqlite3_bind_int64(statement, 1, id);
  int result = sqlite3_step(statement);
  sqlite3_reset(statement);
  *found = result == SQLITE_ROW;
  return *found ? head_read(store, id, head) : status_of_reading(result);
}

static struct head head_of(const struct store_base *base, const struct head *before,
                           const struct buffer *list) {
  struct head head = {
      .memory = {.id = base->id, .base_version = base->version, .version = base->version}};
  strcpy(head.memory.name, base->name);
  if (before && before->memory.version > base->version)
    head.memory.version = before->memory.version;
  head.list_sum = checksum(RECORD_CHUNK_LIST, base->id, base->version,
                           list->length ? list->data : "", list->length);
  head.base_sum =
      checksum(RECORD_BASE, base->id, base->version, base->size ? base->data : "", base->size);
  return head;
}

static enum store_status put_base(struct store *store, const struct store_base *base,
                                  struct buffer *there, struct buffer *list) {
  struct head before;
  bool found;
  enum store_status status = head_find(store, base->id, &before, &found);
  if (status != STORE_OK) return transaction_end(store, status);
  /* the changes between the two are gone */
  if (found && base->version < before.memory.base_version)
    return transaction_end(store, STORE_DAMAGED);
  int result = list_of_chunks(store, base->id, there);
  if (result != SQLITE_OK) return transaction_fail(store, result);
  status = name_chunks(base, there, list);
  if (status == STORE_OK && found) status = queue_unnamed(store, &before, list);
  const struct garbage changes = {.id = base->id, .changes_to = base->version};
  if (status == STORE_OK && found && !garbage_add(&store->garbage, changes))
    status = STORE_NO_MEMORY;
  if (status != STORE_OK) return transaction_end(store, status);
  const struct head head = head_of(base, found ? &before : NULL, list);
  result = write_base(store, base, list);
  if (result == SQLITE_OK) result = head_write(store, found ? &before : NULL, &head);
  return result == SQLITE_OK ? STORE_OK : transaction_fail(store, result);
}

enum store_status store_put_base(struct store *store, const struct store_base *base) {
  if (transaction_write(store, false) != STORE_OK) return transaction_check(store);
  if (strlen(base->name) > STORE_NAME_MAX) return transaction_end(store, STORE_DAMAGED);
  struct buffer there, list;
  buffer_init(&there, 0);
  buffer_init(&list, 0);
  enum store_status status = put_base(store, base, &there, &list);
  buffer_free(&there);
  buffer_free(&list);
  return status;
}

enum store_status store_put_change(struct store *store, int64_t id, int64_t version,
                                   const void *data, size_t size) {
  if (transaction_write(store, false) != STORE_OK) return transaction_check(store);
  struct head before;
  enum store_status status = head_read(store, id, &before);
  if (status == STORE_OK && version != before.memory.version + 1) status = STORE_DAMAGED;
  if (status != STORE_OK) return transaction_end(store, status);
  sqlite3_stmt *statement = statement_get(store, WRITE_CHANGE);
  int result = bind_blob(statement, 4, data, size);
  sqlite3_bind_int64(statement, 1, id);
  sqlite3_bind_int64(statement, 2, version);
  sqlite3_bind_int64(statement, 3,
                     (int64_t)checksum(RECORD_CHANGE, id, version, size ? data : "", size));
  if (result == SQLITE_OK) result = statement_run(statement);
  struct head head = before;
  head.memory.version = version;
  if (result == SQLITE_OK) result = head_write(store, &before, &head);
  return result == SQLITE_OK ? STORE_OK : transaction_fail(store, result);
}

enum store_status store_drop_memory(struct store *store, int64_t id, int64_t version) {
  if (transaction_write(store, false) != STORE_OK) return transaction_check(store);
  struct head before;
  bool found;
  enum store_status status = head_find(store, id, &before, &found);
  if (status == STORE_OK &&
      (!garbage_add(&store->garbage, (struct garbage){.id = id}) ||
       !garbage_add(&store->garbage, (struct garbage){.id = id, .changes_to = INT64_MAX})))
    status = STORE_NO_MEMORY;
  if (status != STORE_OK) return transaction_end(store, status);
  sqlite3_stmt *statement = statement_get(store, DELETE_BASE);
  sqlite3_bind_int64(statement, 1, id);
  int result = statement_run(statement);
  if (result == SQLITE_OK && found) result = head_delete(store, &before);
  if (version > store->root.version_floor) store->root.version_floor = version;
  return result == SQLITE_OK ? STORE_OK : transaction_fail(store, result);
}
