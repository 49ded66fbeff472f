/* What nothing names any more: chunks that no base has, changes that a base has
 * taken in, rows of ids that have no head.
 *
 * The invariant: being garbage follows from the root and what it vouches for, and
 * from nothing else. So the queue of what is to be removed needs no table: it is
 * in memory, and after an end of any kind the next opening finds the same again
 * by comparing the lists of all bases with the index of the chunks. A chunk of a
 * memory whose list can't be trusted is not garbage.
 *
 * A row is removed only when it says itself that it is what the index led to: an
 * index with a flipped bit must not take good bytes with it. */
#include <stdlib.h>
#include <string.h>

#include "store/store_private.h"

bool garbage_add(struct garbage_queue *queue, struct garbage item) {
  if (queue->count == queue->capacity) {
    size_t capacity = queue->capacity ? queue->capacity * 2 : 64;
    struct garbage *items = reallocarray(queue->items, capacity, sizeof *items);
    if (!items) return false;
    queue->items = items;
    queue->capacity = capacity;
  }
  queue->items[queue->count++] = item;
  return true;
}

void garbage_free(struct garbage_queue *queue) {
  free(queue->items);
  *queue = (struct garbage_queue){0};
}

/* ---- Finding it ---- */

/* Goes along the heads and along the chunks, both in order of ids. */
struct scan {
  struct store *store;
  sqlite3_stmt *chunks;
  int result;         /* of the last step: SQLITE_ROW while there is a chunk */
  struct buffer list; /* of the head under way, in order of numbers */
  size_t at;          /* the entry that is expected next */
};

static int64_t chunk_id(const struct scan *scan) {
  return sqlite3_column_int64(scan->chunks, 0);
}

/* The chunks of an id that has no head. */
static bool queue_id(struct scan *scan) {
  const int64_t id = chunk_id(scan);
  while (scan->result == SQLITE_ROW && chunk_id(scan) == id)
    scan->result = sqlite3_step(scan->chunks);
  return garbage_add(&scan->store->garbage, (struct garbage){.id = id});
}

/* Each chunk of the head has to be there with its checksum; others are garbage. */
static bool compare(struct scan *scan, struct head *head) {
  const int64_t id = head->memory.id;
  const size_t entries = scan->list.length / LIST_ENTRY;
  for (; scan->result == SQLITE_ROW && chunk_id(scan) == id;
       scan->result = sqlite3_step(scan->chunks)) {
    const int64_t number = sqlite3_column_int64(scan->chunks, 1);
    const uint64_t sum = (uint64_t)sqlite3_column_int64(scan->chunks, 2);
    /* a gap: the chunk that was expected is not there */
    for (; scan->at < entries && list_chunk(scan->list.data, scan->at) < number; scan->at++)
      head->damaged = true;
    if (scan->at < entries && list_chunk(scan->list.data, scan->at) == number) {
      if (list_sum(scan->list.data, scan->at) != sum) head->damaged = true;
      scan->at++;
    } else if (!head->damaged &&
               !garbage_add(&scan->store->garbage, (struct garbage){.id = id, .chunk = number})) {
      return false;
    }
  }
  if (scan->at < entries) head->damaged = true;
  return true;
}

static bool scan_head(struct scan *scan, struct head *head) {
  while (scan->result == SQLITE_ROW && chunk_id(scan) < head->memory.id)
    if (!queue_id(scan)) return false;
  buffer_clear(&scan->list);
  scan->at = 0;
  enum store_status status = list_read(scan->store, head, &scan->list);
  if (status == STORE_NO_MEMORY) return false;
  if (status != STORE_OK) {
    head->damaged = true;
    while (scan->result == SQLITE_ROW && chunk_id(scan) == head->memory.id)
      scan->result = sqlite3_step(scan->chunks);
    return true;
  }
  if (scan->list.length > 0)
    qsort(scan->list.data, scan->list.length / LIST_ENTRY, LIST_ENTRY, list_compare);
  return compare(scan, head);
}

static bool scan_chunks(struct store *store) {
  struct scan scan = {.store = store, .chunks = statement_get(store, SCAN_CHUNKS)};
  buffer_init(&scan.list, 0);
  scan.result = sqlite3_step(scan.chunks);
  bool memory = true;
  for (size_t i = 0; memory && i < store->head_count; i++)
    memory = scan_head(&scan, &store->heads[i]);
  while (memory && scan.result == SQLITE_ROW)
    memory = queue_id(&scan);
  enum store_status status = status_of_reading(scan.result);
  sqlite3_reset(scan.chunks);
  buffer_free(&scan.list);
  if (status == STORE_DAMAGED) {
    /* an index that can't be read to its end says nothing of what is garbage,
     * and the chunks that it doesn't lead to fail when they are read */
    store->garbage.first = store->garbage.count = 0;
  }
  return memory && status != STORE_NO_MEMORY;
}

static int64_t changes_garbage_to(const struct store *store, size_t *head, int64_t id) {
  while (*head < store->head_count && store->heads[*head].memory.id < id)
    ++*head;
  const bool found = *head < store->head_count && store->heads[*head].memory.id == id;
  return found ? store->heads[*head].memory.base_version : INT64_MAX;
}

static bool scan_changes(struct store *store) {
  int64_t id = INT64_MIN;
  size_t head = 0;
  for (;;) {
    sqlite3_stmt *statement = statement_get(store, NEXT_CHANGED);
    sqlite3_bind_int64(statement, 1, id);
    int result = sqlite3_step(statement);
    if (result == SQLITE_ROW) id = sqlite3_column_int64(statement, 0);
    sqlite3_reset(statement);
    if (result != SQLITE_ROW) return status_of_reading(result) != STORE_NO_MEMORY;
    const struct garbage item = {.id = id, .changes_to = changes_garbage_to(store, &head, id)};
    if (!garbage_add(&store->garbage, item)) return false;
  }
}

bool garbage_scan(struct store *store) {
  return scan_chunks(store) && scan_changes(store);
}

/* Where memory is short the next opening finds it. */
void store_abandon_chunk(struct store *store, int64_t id, int64_t chunk) {
  (void)garbage_add(&store->garbage, (struct garbage){.id = id, .chunk = chunk});
}

/* ---- Removing it ---- */

/* In a transaction where the disk is nearly full: changes of so many bytes are on
 * half the pages that the journal has room for. */
enum { SCARCE_BYTES = 1 << 19 };

/* Removes one row of the item. SQLITE_DONE where none is left. */
static int remove_change(struct store *store, const struct garbage *item, size_t *bytes) {
  sqlite3_stmt *find = statement_get(store, FIRST_CHANGE);
  sqlite3_bind_int64(find, 1, item->id);
  sqlite3_bind_int64(find, 2, item->changes_to);
  int result = sqlite3_step(find);
  const int64_t version = result == SQLITE_ROW ? sqlite3_column_int64(find, 0) : 0;
  *bytes += result == SQLITE_ROW ? (size_t)sqlite3_column_int64(find, 1) : 0;
  sqlite3_reset(find);
  if (result != SQLITE_ROW) return result;
  sqlite3_stmt *statement = statement_get(store, DELETE_CHANGE);
  sqlite3_bind_int64(statement, 1, item->id);
  sqlite3_bind_int64(statement, 2, version);
  return statement_run(statement);
}

/* `after`: the number of the last one, which goes up also past a row that is
 * left alone. */
static int remove_chunk(struct store *store, const struct garbage *item, int64_t *after,
                        size_t *bytes) {
  sqlite3_stmt *find = statement_get(store, NEXT_CHUNK);
  sqlite3_bind_int64(find, 1, item->id);
  sqlite3_bind_int64(find, 2, *after);
  int result = sqlite3_step(find);
  const int64_t number = result == SQLITE_ROW ? sqlite3_column_int64(find, 0) : 0;
  const int64_t slot = result == SQLITE_ROW ? sqlite3_column_int64(find, 1) : 0;
  sqlite3_reset(find);
  if (result != SQLITE_ROW) return result;
  if (item->chunk != 0 && number != item->chunk) return SQLITE_DONE;
  *after = number;
  sqlite3_stmt *row = statement_get(store, DESCRIBE_CHUNK);
  sqlite3_bind_int64(row, 1, slot);
  result = sqlite3_step(row);
  const bool meant = result == SQLITE_ROW && sqlite3_column_int64(row, 0) == item->id &&
                     sqlite3_column_int64(row, 1) == number;
  *bytes += meant ? (size_t)sqlite3_column_int64(row, 2) : 0;
  sqlite3_reset(row);
  if (!meant) return result == SQLITE_ROW || result == SQLITE_DONE ? SQLITE_OK : result;
  sqlite3_stmt *statement = statement_get(store, DELETE_CHUNK);
  sqlite3_bind_int64(statement, 1, slot);
  return statement_run(statement);
}

/* Removes rows of the item until enough or all are gone (SQLITE_DONE). */
static int remove_rows(struct store *store, const struct garbage *item, size_t enough,
                       size_t *bytes) {
  int64_t after = item->chunk != 0 ? item->chunk - 1 : INT64_MIN;
  int result = SQLITE_OK;
  while (result == SQLITE_OK && *bytes < enough)
    result = item->changes_to != 0 ? remove_change(store, item, bytes)
                                   : remove_chunk(store, item, &after, bytes);
  return result;
}

/* What a transaction needs for itself is the less the less it removes. */
static enum store_status sweep(struct store *store, size_t enough, bool *more) {
  struct garbage_queue *queue = &store->garbage;
  *more = queue->first < queue->count;
  if (!*more) return store_failure(store) ? STORE_FAILED : STORE_OK;
  enum store_status status = store_begin(store);
  if (status == STORE_OK) status = transaction_write(store, false);
  if (status != STORE_OK) return status;
  size_t done = queue->first, removed = 0;
  int result = SQLITE_DONE;
  while (done < queue->count && result == SQLITE_DONE) {
    result = remove_rows(store, &queue->items[done], enough, &removed);
    if (result == SQLITE_DONE) done++;
  }
  if (result != SQLITE_DONE && result != SQLITE_OK) return transaction_fail(store, result);
  status = removed > 0 || done > queue->first ? store_commit(store) : STORE_OK;
  if (status != STORE_OK) return status;
  queue->first = done;
  if (done == queue->count) queue->first = queue->count = 0;
  *more = queue->count > 0;
  return STORE_OK;
}

/* Once for the reserve, or once more for the least that can be removed. */
enum store_status store_sweep(struct store *store, size_t bytes, bool *more) {
  const size_t least = 1, some = store->journal_reserved ? SCARCE_BYTES : least;
  const size_t enough = bytes == 0 ? least : store->scarce && bytes > some ? some : bytes;
  enum store_status status = sweep(store, enough, more);
  if (status == STORE_FULL && (store_made_room(store) || enough > least))
    status = sweep(store, least, more);
  return status;
}
