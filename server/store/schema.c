/* The tables, and how they come to be.
 *
 * The invariant: a store of version v is what the first v steps make out of
 * nothing. Making a store and bringing one up to date are therefore one loop, in
 * one transaction, and there is no second description of the tables that could
 * differ from the sum of the steps. The version stands in the file's header
 * (user_version) and, under its checksum, in the root; the two have to agree.
 *
 * Chunks are in a table with a number of its own for each row and an index over
 * (id, number, sum): the rows are of a MiB, the index has fifty bytes for each, so
 * the scan at the start and the search for what nothing names read the index
 * alone. Because the index has the checksum, a row that the index leads to and
 * that is not the one meant is noticed. A table without rowid was rejected: its
 * keys are a MiB apart. Changes are small and always read in order of their key,
 * so for them it is right. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "store/store_private.h"

/* "attn" */
#define APPLICATION_ID 1635022958

const struct migration store_migrations[] = {
    {"CREATE TABLE root (one INTEGER PRIMARY KEY, schema INTEGER NOT NULL, commits INTEGER NOT "
     "NULL,"
     "  next_id INTEGER NOT NULL, version_floor INTEGER NOT NULL, heads INTEGER NOT NULL,"
     "  heads_sum INTEGER NOT NULL, sum INTEGER NOT NULL);"
     "CREATE TABLE head (id INTEGER PRIMARY KEY, name TEXT NOT NULL, base_version INTEGER NOT NULL,"
     "  version INTEGER NOT NULL, list_sum INTEGER NOT NULL, base_sum INTEGER NOT NULL,"
     "  sum INTEGER NOT NULL);"
     "CREATE TABLE base (id INTEGER PRIMARY KEY, list BLOB NOT NULL, data BLOB NOT NULL);"
     "CREATE TABLE chunk (slot INTEGER PRIMARY KEY, id INTEGER NOT NULL, number INTEGER NOT NULL,"
     "  sum INTEGER NOT NULL, data BLOB NOT NULL);"
     "CREATE UNIQUE INDEX chunk_number ON chunk (id, number, sum);"
     "CREATE TABLE change (id INTEGER NOT NULL, version INTEGER NOT NULL, sum INTEGER NOT NULL,"
     "  data BLOB NOT NULL, PRIMARY KEY (id, version)) WITHOUT ROWID;"},
};
const size_t store_migration_count = sizeof store_migrations / sizeof store_migrations[0];

int read_number(struct store *store, const char *query, int64_t *number) {
  sqlite3_stmt *statement;
  int result = sqlite3_prepare_v2(store->db, query, -1, &statement, NULL);
  if (result != SQLITE_OK) return result;
  result = sqlite3_step(statement);
  if (result == SQLITE_ROW) *number = sqlite3_column_int64(statement, 0);
  sqlite3_finalize(statement);
  return result == SQLITE_ROW ? SQLITE_OK : result == SQLITE_DONE ? SQLITE_CORRUPT : result;
}

struct header {
  int64_t application, version, tables;
};

static int read_header(struct store *store, struct header *header) {
  int result = read_number(store, "PRAGMA application_id", &header->application);
  if (result == SQLITE_OK) result = read_number(store, "PRAGMA user_version", &header->version);
  if (result == SQLITE_OK)
    result = read_number(store, "SELECT count(*) FROM sqlite_schema", &header->tables);
  return result;
}

static bool unreadable(struct store *store, int result, char *error, size_t error_size) {
  snprintf(error, error_size,
           "%s can't be read: %s; if the disk is sound, restore a backup into "
           "an empty data directory",
           store->path, sqlite3_errstr(result));
  return false;
}

static int take_steps(struct store *store, size_t first) {
  const size_t end = store->options.migration_count;
  int result = SQLITE_OK;
  for (size_t i = first; i < end && result == SQLITE_OK; i++)
    result = sqlite3_exec(store->db, store->options.migrations[i].sql, NULL, NULL, NULL);
  char header[100];
  snprintf(header, sizeof header, "PRAGMA user_version = %zu; PRAGMA application_id = %d", end,
           APPLICATION_ID);
  if (result == SQLITE_OK) result = sqlite3_exec(store->db, header, NULL, NULL, NULL);
  return result;
}

/* From version `first` to the newest, all of it or nothing. */
static bool migrate(struct store *store, size_t first, char *error, size_t error_size) {
  errno = 0;
  int result = sqlite3_exec(store->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
  if (result == SQLITE_OK) result = take_steps(store, first);
  if (result == SQLITE_OK && !store->statements[WRITE_ROOT] &&
      !connection_prepare(store, BEGIN_WRITE, READ_HEADS, error, error_size))
    return false;
  store->root.schema = (int64_t)store->options.migration_count;
  store->root.commits++;
  if (result == SQLITE_OK) result = root_write(store);
  if (result == SQLITE_OK) result = sqlite3_exec(store->db, "COMMIT", NULL, NULL, NULL);
  if (result == SQLITE_OK) {
    witness_write(store);
    return true;
  }
  if (!sqlite3_get_autocommit(store->db)) sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
  snprintf(error, error_size, "the tables of %s can't be %s: %s%s%s", store->path,
           first == 0 ? "made" : "brought up to date", sqlite3_errstr(result), errno ? ": " : "",
           errno ? strerror(errno) : "");
  return false;
}

/* What the witness knows must be there. */
static bool all_acknowledged(struct store *store, int64_t witnessed, char *error,
                             size_t error_size) {
  if (store->root.commits >= witnessed) return true;
  snprintf(error, error_size,
           "%s lacks writes that were acknowledged: it has %lld commits and the file %s knows of "
           "%lld; restore a backup into an empty data directory, or delete that file to go on "
           "without those writes",
           store->path, (long long)store->root.commits, WITNESS_NAME, (long long)witnessed);
  return false;
}

bool schema_prepare(struct store *store, int64_t witnessed, char *error, size_t error_size) {
  struct header header = {0, 0, 0};
  int result = read_header(store, &header);
  if (result != SQLITE_OK) return unreadable(store, result, error, error_size);
  const int64_t newest = (int64_t)store->options.migration_count;
  if (header.application == 0 && header.version == 0 && header.tables == 0) {
    store->root = (struct root){.next_id = 1};
    return all_acknowledged(store, witnessed, error, error_size) &&
           migrate(store, 0, error, error_size);
  }
  if (header.application != APPLICATION_ID) {
    snprintf(error, error_size, "%s is not a store of attentiond", store->path);
    return false;
  }
  if (header.version > newest) {
    snprintf(error, error_size,
             "%s was written by a newer attentiond: it has format %lld, this one knows up to %lld",
             store->path, (long long)header.version, (long long)newest);
    return false;
  }
  if (!connection_prepare(store, BEGIN_WRITE, READ_HEADS, error, error_size)) return false;
  bool valid;
  result = root_read(store, &store->root, &valid);
  if (result != SQLITE_OK) return unreadable(store, result, error, error_size);
  if (!valid || header.version < 1 || store->root.schema != header.version) {
    snprintf(error, error_size,
             "%s is damaged: its root is not as it was written; restore a backup into an empty "
             "data directory",
             store->path);
    return false;
  }
  return all_acknowledged(store, witnessed, error, error_size) &&
         (header.version == newest || migrate(store, (size_t)header.version, error, error_size));
}
