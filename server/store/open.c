/* The order in which a store is opened and closed.
 *
 *   open    the folder, its lock, what is left over, the witness, the database,
 *           its tables and root, the heads, the scan for garbage and damage, its
 *           removal
 *   close   what was begun is rolled back, the log goes into the database, then
 *           the lock
 *
 * The invariant: opening writes nothing before the root was found to be good and
 * to have every commit that the witness knows of, so that what is refused is left
 * as it was, for whoever has to find out what happened. That a store is damaged
 * in its root or heads, or lacks writes, is said and not mended: the daemon can't
 * know which of the operator's copies is the best one.
 *
 * A full disk keeps no store from being opened: all that would be written here is
 * the removal of garbage, which can wait. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/store_private.h"

/* Garbage is removed in transactions of this size. */
#define SWEEP_BYTES ((size_t)64 << 20)

struct store_options store_usual_options(void) {
  return (struct store_options){.vfs = NULL,
                                .migrations = store_migrations,
                                .migration_count = store_migration_count,
                                .wal_bytes = (size_t)64 << 20,
                                .page_bytes = 32768,
                                .bulk_bytes = (size_t)32 << 20};
}

struct store *store_create(const char *directory, const char *name,
                           const struct store_options *options) {
  struct store *store = calloc(1, sizeof *store);
  if (!store) return NULL;
  store->options = *options;
  store->lock = store->witness = store->file = store->reserve = -1;
  store->last = STORE_FAILED;
  store->directory = strdup(directory);
  store->path = path_in(directory, name);
  if (store->directory && store->path) return store;
  store_close(store);
  return NULL;
}

void store_close(struct store *store) {
  if (!store) return;
  store_rollback(store);
  if (store->db) {
    connection_settle(store);
    connection_close(store);
    reserve_keep_closed(store);
  }
  reserve_close(store);
  if (store->witness >= 0) close(store->witness);
  if (store->lock >= 0) close(store->lock);
  garbage_free(&store->garbage);
  free(store->heads);
  free(store->directory);
  free(store->path);
  free(store);
}

void store_abandon(struct store *store) {
  if (store->db) sqlite3_db_config(store->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)NULL);
  atomic_store(&store->failure, "not opened"); /* so that the close writes nothing */
  store_close(store);
}

const char *store_directory(const struct store *store) {
  return store->directory;
}

static off_t size_of(const char *path) {
  struct stat status;
  return stat(path, &status) == 0 ? status.st_size : -1;
}

/* SQLite deletes the log of a database that is missing or empty; here that log is
 * all that is left. */
static bool log_has_database(const struct store *store, char *error, size_t error_size) {
  char *log;
  if (asprintf(&log, "%s-wal", store->path) < 0) {
    snprintf(error, error_size, "memory is short");
    return false;
  }
  bool lost = size_of(store->path) <= 0 && size_of(log) > 0;
  free(log);
  if (lost)
    snprintf(error, error_size,
             "%s is missing or empty, but its write-ahead log is there; restore a backup into an "
             "empty data directory",
             store->path);
  return !lost;
}

bool store_load(struct store *store, char *error, size_t error_size) {
  if (!log_has_database(store, error, error_size)) return false;
  const int64_t witnessed = store->lock >= 0 ? witness_open(store) : 0;
  if (size_of(store->path) < 0 && witnessed > 0) {
    snprintf(error, error_size,
             "%s is missing, but the file %s next to it knows of %lld commits; put it back, or "
             "restore a backup into an empty data directory",
             store->path, WITNESS_NAME, (long long)witnessed);
    return false;
  }
  if (!file_make(store->path) || !folder_sync(store->directory)) {
    snprintf(error, error_size, "%s can't be made: %s", store->path, strerror(errno));
    return false;
  }
  if (!connection_open(store, error, error_size) ||
      !schema_prepare(store, witnessed, error, error_size) ||
      !connection_prepare(store, READ_HEADS, STATEMENT_COUNT, error, error_size) ||
      !heads_load(store, error, error_size))
    return false;
  if (garbage_scan(store)) return true;
  snprintf(error, error_size, "memory is short");
  return false;
}

/* Copies that were under way when a process ended, and their journals. */
static void remove_leftovers(const struct store *store) {
  DIR *folder = opendir(store->directory);
  const struct dirent *entry;
  while (folder && (entry = readdir(folder)))
    if (strncmp(entry->d_name, RESTORE_NAME, strlen(RESTORE_NAME)) == 0 ||
        strncmp(entry->d_name, STORE_COPY_PREFIX, strlen(STORE_COPY_PREFIX)) == 0)
      unlinkat(dirfd(folder), entry->d_name, 0);
  if (folder) closedir(folder);
}

/* An error here is the next write's to report. */
static void tidy(struct store *store) {
  bool more = true;
  while (more && store_sweep(store, SWEEP_BYTES, &more) == STORE_OK) {
  }
  connection_settle(store);
  reserve_keep(store);
}

struct store *store_open_with(const char *directory, const struct store_options *options,
                              char *error, size_t error_size) {
  struct store *store = store_create(directory, DATABASE_NAME, options);
  if (!store) {
    snprintf(error, error_size, "memory is short");
    return NULL;
  }
  if (!folder_make(directory, error, error_size)) goto failed;
  store->lock = folder_lock(directory, error, error_size);
  if (store->lock < 0) goto failed;
  remove_leftovers(store);
  if (!store_load(store, error, error_size)) goto failed;
  reserve_open(store);
  tidy(store);
  return store;
failed:
  store_abandon(store);
  return NULL;
}

struct store *store_open(const char *directory, char *error, size_t error_size) {
  const struct store_options options = store_usual_options();
  return store_open_with(directory, &options, error, error_size);
}
