/* The root and the heads: what says what everything else has to be.
 *
 * The invariant: the root names the number of heads and the sum of their
 * checksums, and every commit writes it. A head that vanished, came twice or went
 * back to an older state of its page makes a sum that the root doesn't have. A
 * head in turn names the versions and checksums of its base, so an older base or
 * a lost change is noticed even where it was itself read without an error.
 *
 * A sum and not a hash over all heads, because a commit changes one of them and
 * must not read the others. XOR was rejected: a head that came twice would vanish
 * from it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/store_private.h"

enum { ROOT_BYTES = 48, HEAD_BYTES = 32 + STORE_NAME_MAX };

static uint64_t root_sum(const struct root *root) {
  unsigned char bytes[ROOT_BYTES];
  bytes_store_u64(bytes, (uint64_t)root->schema);
  bytes_store_u64(bytes + 8, (uint64_t)root->commits);
  bytes_store_u64(bytes + 16, (uint64_t)root->next_id);
  bytes_store_u64(bytes + 24, (uint64_t)root->version_floor);
  bytes_store_u64(bytes + 32, (uint64_t)root->heads);
  bytes_store_u64(bytes + 40, root->heads_sum);
  return checksum(RECORD_ROOT, 0, 0, bytes, sizeof bytes);
}

static uint64_t head_sum(const struct head *head) {
  unsigned char bytes[HEAD_BYTES];
  const size_t length = strlen(head->memory.name);
  bytes_store_u64(bytes, (uint64_t)head->memory.base_version);
  bytes_store_u64(bytes + 8, (uint64_t)head->memory.version);
  bytes_store_u64(bytes + 16, head->list_sum);
  bytes_store_u64(bytes + 24, head->base_sum);
  memcpy(bytes + 32, head->memory.name, length);
  return checksum(RECORD_HEAD, head->memory.id, 0, bytes, 32 + length);
}

int root_read(struct store *store, struct root *root, bool *valid) {
  sqlite3_stmt *statement = statement_get(store, READ_ROOT);
  int result = sqlite3_step(statement);
  *valid = false;
  if (result == SQLITE_ROW) {
    *root = (struct root){.schema = sqlite3_column_int64(statement, 0),
                          .commits = sqlite3_column_int64(statement, 1),
                          .next_id = sqlite3_column_int64(statement, 2),
                          .version_floor = sqlite3_column_int64(statement, 3),
                          .heads = sqlite3_column_int64(statement, 4),
                          .heads_sum = (uint64_t)sqlite3_column_int64(statement, 5)};
    *valid = root_sum(root) == (uint64_t)sqlite3_column_int64(statement, 6);
  }
  sqlite3_reset(statement);
  return result == SQLITE_ROW || result == SQLITE_DONE ? SQLITE_OK : result;
}

int root_write(struct store *store) {
  const struct root *root = &store->root;
  sqlite3_stmt *statement = statement_get(store, WRITE_ROOT);
  sqlite3_bind_int64(statement, 1, root->schema);
  sqlite3_bind_int64(statement, 2, root->commits);
  sqlite3_bind_int64(statement, 3, root->next_id);
  sqlite3_bind_int64(statement, 4, root->version_floor);
  sqlite3_bind_int64(statement, 5, root->heads);
  sqlite3_bind_int64(statement, 6, (int64_t)root->heads_sum);
  sqlite3_bind_int64(statement, 7, (int64_t)root_sum(root));
  return statement_run(statement);
}

/* The head in the statement's row; false where it isn't what was written. */
static bool head_in_row(sqlite3_stmt *statement, struct head *head) {
  memset(head, 0, sizeof *head);
  const unsigned char *name = sqlite3_column_text(statement, 1);
  const size_t length = (size_t)sqlite3_column_bytes(statement, 1);
  if (!name || length > STORE_NAME_MAX || memchr(name, 0, length)) return false;
  memcpy(head->memory.name, name, length);
  head->memory.id = sqlite3_column_int64(statement, 0);
  head->memory.base_version = sqlite3_column_int64(statement, 2);
  head->memory.version = sqlite3_column_int64(statement, 3);
  head->list_sum = (uint64_t)sqlite3_column_int64(statement, 4);
  head->base_sum = (uint64_t)sqlite3_column_int64(statement, 5);
  return head_sum(head) == (uint64_t)sqlite3_column_int64(statement, 6);
}

enum store_status head_read(struct store *store, int64_t id, struct head *head) {
  sqlite3_stmt *statement = statement_get(store, READ_HEAD);
  sqlite3_bind_int64(statement, 1, id);
  int result = sqlite3_step(statement);
  enum store_status status = status_of_reading(result);
  if (status == STORE_OK && (result != SQLITE_ROW || !head_in_row(statement, head)))
    status = STORE_DAMAGED;
  sqlite3_reset(statement);
  return status;
}

int head_write(struct store *store, const struct head *before, const struct head *head) {
  sqlite3_stmt *statement = statement_get(store, WRITE_HEAD);
  sqlite3_bind_int64(statement, 1, head->memory.id);
  sqlite3_bind_text(statement, 2, head->memory.name, -1, SQLITE_STATIC);
  sqlite3_bind_int64(statement, 3, head->memory.base_version);
  sqlite3_bind_int64(statement, 4, head->memory.version);
  sqlite3_bind_int64(statement, 5, (int64_t)head->list_sum);
  sqlite3_bind_int64(statement, 6, (int64_t)head->base_sum);
  sqlite3_bind_int64(statement, 7, (int64_t)head_sum(head));
  int result = statement_run(statement);
  if (result != SQLITE_OK) return result;
  store->root.heads += before ? 0 : 1;
  store->root.heads_sum += head_sum(head) - (before ? head_sum(before) : 0);
  return SQLITE_OK;
}

int head_delete(struct store *store, const struct head *head) {
  sqlite3_stmt *statement = statement_get(store, DELETE_HEAD);
  sqlite3_bind_int64(statement, 1, head->memory.id);
  int result = statement_run(statement);
  if (result != SQLITE_OK) return result;
  store->root.heads--;
  store->root.heads_sum -= head_sum(head);
  return SQLITE_OK;
}

static bool add_head(struct store *store, size_t *capacity, const struct head *head) {
  if (store->head_count == *capacity) {
    size_t more = *capacity ? *capacity * 2 : 16;
    struct head *heads = reallocarray(store->heads, more, sizeof *heads);
    if (!heads) return false;
    store->heads = heads;
    *capacity = more;
  }
  store->heads[store->head_count++] = *head;
  return true;
}

bool heads_load(struct store *store, char *error, size_t error_size) {
  size_t capacity = 0;
  uint64_t sum = 0;
  bool valid = true, memory = true;
  int result;
  sqlite3_stmt *statement = statement_get(store, READ_HEADS);
  while (valid && memory && (result = sqlite3_step(statement)) == SQLITE_ROW) {
    struct head head;
    valid = head_in_row(statement, &head);
    if (valid) memory = add_head(store, &capacity, &head);
    if (valid) sum += head_sum(&head);
  }
  if (valid && memory) memory = status_of_reading(result) != STORE_NO_MEMORY;
  sqlite3_reset(statement);
  if (!memory) {
    snprintf(error, error_size, "memory is short");
    return false;
  }
  if (valid && result == SQLITE_DONE && (int64_t)store->head_count == store->root.heads &&
      sum == store->root.heads_sum)
    return true;
  snprintf(error, error_size,
           "%s is damaged: its list of memories is not as it was written; restore a backup into "
           "an empty data directory",
           store->path);
  return false;
}

bool store_memory_at(const struct store *store, size_t index, struct store_memory *memory) {
  if (index >= store->head_count) return false;
  *memory = store->heads[index].memory;
  return true;
}

int64_t store_version_floor(const struct store *store) {
  return store->root.version_floor;
}

int64_t store_new_id(struct store *store) {
  return store->root.next_id++;
}
