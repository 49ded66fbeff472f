/* The connection: settings, statements, transactions, and what an error means.
 *
 * The invariants:
 *  - There is one connection, and nobody else may open the file meanwhile.
 *  - After an error no transaction is under way. SQLite rolls most of them back
 *    on its own and some not; it is asked, not guessed.
 *  - A full disk is no failure: the log's new frames don't count without their
 *    commit, and the next transaction writes over them. Any other error of
 *    writing is for good, because after a failed fsync the kernel may call pages
 *    clean that never reached the disk: a second fsync would succeed and lie.
 *    From then on nothing is written, not even the checkpoint of a close. Whoever
 *    opens the store again reads from the disk what is really there.
 *  - fsync can fail with ENOSPC too. SQLite reports that as an I/O error and only
 *    a write() without room as full, which is the distinction needed here.
 *
 * SQLite's automatic checkpoint is off, because its error would come back as if
 * the COMMIT had failed that went before it. Ours runs at the next beginning, so
 * that a commit is acknowledged before its checkpoint and not after.
 *
 * There are two ways to write. With a write-ahead log a small commit is one fsync,
 * but every byte is written twice. With a rollback journal a commit is four, but
 * what is appended is written once. So a transaction that begins with a chunk, and
 * is said to get bulk_bytes of them or follows one that had them, is written
 * directly, and everything else through the log; changing the mode takes a few
 * milliseconds. 512 MiB in transactions of 64 MiB, pages of 32 KiB, two cores, a
 * virtual disk, against cp and fsync of the same bytes at about 1,500 MB/s: 370 MB/s
 * through the log, 630 to 880 directly. One row: 0.2 ms through the log, 0.7 directly.
 * So what comes between two transactions of chunks stays direct: two changes of the
 * mode cost more. An import of 1 GB with appends of a row beside it took 2.5 s in
 * place of 3.0, and 99 % of the appends less than 29 ms in place of 52.
 *
 * Where the disk is nearly full all is written directly, because a log takes room of
 * its own: a disk could be full of a log that the database has no room to take in,
 * and not even dropping a memory would work, or a database could be half empty and
 * not be written to for want of room for the log. See reserve.c for what both find
 * there. What is direct has a last step that can fail in part, see
 * transaction_fail().
 *
 * Pages of 16 KiB made that 550 to 670 MB/s, of 64 KiB 750 to 970, at twice the
 * bytes for a small commit. Rejected after measuring: a log of 256 MiB before its
 * checkpoint (280 MB/s instead of 370), a page cache of 32 MiB instead of 8 (slower
 * in each of six runs: what is spilled early need not be written at the commit),
 * chunks a little smaller than a MiB (no difference).
 *
 * While chunks are read the page cache is 512 KiB: each of their pages is needed
 * once, and a cache that is itself in the processor's costs 7 % less time of it
 * for a whole load. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "store/store_private.h"

static const char *const sql[STATEMENT_COUNT] = {
    [BEGIN_WRITE] = "BEGIN IMMEDIATE",
    [COMMIT_WRITE] = "COMMIT",
    [ROLL_BACK] = "ROLLBACK",
    [READ_ROOT] = "SELECT schema, commits, next_id, version_floor, heads, heads_sum, sum FROM root "
                  "WHERE one = 1",
    [WRITE_ROOT] = "REPLACE INTO root (one, schema, commits, next_id, version_floor, heads, "
                   "heads_sum, sum) VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [READ_HEADS] = "SELECT id, name, base_version, version, list_sum, base_sum, sum FROM head "
                   "ORDER BY id",
    [READ_HEAD] = "SELECT id, name, base_version, version, list_sum, base_sum, sum FROM head "
                  "WHERE id = ?1",
    [WRITE_HEAD] = "REPLACE INTO head (id, name, base_version, version, list_sum, base_sum, sum) "
                   "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [DELETE_HEAD] = "DELETE FROM head WHERE id = ?1",
    [READ_BASE] = "SELECT data FROM base WHERE id = ?1",
    [READ_LIST] = "SELECT list FROM base WHERE id = ?1",
    [WRITE_BASE] = "REPLACE INTO base (id, list, data) VALUES (?1, ?2, ?3)",
    [DELETE_BASE] = "DELETE FROM base WHERE id = ?1",
    [FIND_CHUNK] = "SELECT slot, sum FROM chunk INDEXED BY chunk_number "
                   "WHERE id = ?1 AND number = ?2",
    [WRITE_CHUNK] = "INSERT INTO chunk (id, number, sum, data) VALUES (?1, ?2, ?3, ?4)",
    [SCAN_CHUNKS] = "SELECT id, number, sum FROM chunk INDEXED BY chunk_number ORDER BY id, number",
    [CHUNKS_OF] = "SELECT number, sum FROM chunk INDEXED BY chunk_number WHERE id = ?1 "
                  "ORDER BY number",
    [COUNT_PAGES] = "PRAGMA page_count",
    [NEXT_CHUNK] = "SELECT number, slot FROM chunk INDEXED BY chunk_number "
                   "WHERE id = ?1 AND number > ?2 ORDER BY number LIMIT 1",
    [LAST_CHUNK] = "SELECT number FROM chunk INDEXED BY chunk_number WHERE id = ?1 "
                   "ORDER BY number DESC LIMIT 1",
    [DESCRIBE_CHUNK] = "SELECT id, number, length(data) FROM chunk NOT INDEXED WHERE slot = ?1",
    [DELETE_CHUNK] = "DELETE FROM chunk WHERE slot = ?1",
    [READ_CHANGES] = "SELECT version, sum, data FROM change WHERE id = ?1 AND version > ?2 "
                     "ORDER BY version",
    [WRITE_CHANGE] = "INSERT INTO change (id, version, sum, data) VALUES (?1, ?2, ?3, ?4)",
    [NEXT_CHANGED] = "SELECT id FROM change WHERE id > ?1 ORDER BY id LIMIT 1",
    [FIRST_CHANGE] = "SELECT version, length(data) FROM change WHERE id = ?1 AND version <= ?2 "
                     "ORDER BY version LIMIT 1",
    [DELETE_CHANGE] = "DELETE FROM change WHERE id = ?1 AND version = ?2",
    [COPY_INTO] = "VACUUM INTO ?1",
};

#define CACHE_OF_WRITING "PRAGMA cache_size = -8192"
#define CACHE_OF_READING "PRAGMA cache_size = -512"

void connection_set_reading(struct store *store, bool reading) {
  if (store->reading == reading) return;
  /* an error leaves the other cache, which is as good */
  sqlite3_exec(store->db, reading ? CACHE_OF_READING : CACHE_OF_WRITING, NULL, NULL, NULL);
  store->reading = reading;
}

static int note_log(void *context, sqlite3 *db, const char *name, int pages) {
  (void)db;
  (void)name;
  struct store *store = context;
  store->wal_pages = (size_t)pages;
  return SQLITE_OK;
}

/* locking_mode comes first: with it the log's index is in memory of our own, and
 * no third file is there to be damaged. */
static int apply_settings(struct store *store) {
  char *settings = sqlite3_mprintf(
      "PRAGMA locking_mode = EXCLUSIVE; PRAGMA page_size = %llu; PRAGMA trusted_schema = OFF;"
      "PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY;"
      "PRAGMA secure_delete = OFF; " CACHE_OF_WRITING "; PRAGMA journal_mode = WAL;"
      "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;",
      (unsigned long long)store->options.page_bytes);
  if (!settings) return SQLITE_NOMEM;
  int result = sqlite3_db_config(store->db, SQLITE_DBCONFIG_DEFENSIVE, 1, (int *)NULL);
  if (result == SQLITE_OK) result = sqlite3_exec(store->db, settings, NULL, NULL, NULL);
  sqlite3_free(settings);
  sqlite3_wal_hook(store->db, note_log, store);
  /* an older store may have pages of another size */
  int64_t page_bytes = 0;
  if (result == SQLITE_OK) result = read_number(store, "PRAGMA page_size", &page_bytes);
  if (result != SQLITE_OK || page_bytes < 512) return result ? result : SQLITE_CORRUPT;
  store->page_bytes = (size_t)page_bytes;
  store->checkpoint_at = store->options.wal_bytes / store->page_bytes;
  return SQLITE_OK;
}

static bool cannot_open(struct store *store, int result, char *error, size_t error_size) {
  switch (result & 0xff) {
  case SQLITE_CORRUPT:
  case SQLITE_NOTADB:
    snprintf(error, error_size, "%s is damaged (%s): restore a backup into an empty data directory",
             store->path, sqlite3_errstr(result));
    break;
  case SQLITE_BUSY:
    snprintf(error, error_size, "%s is in use by another program", store->path);
    break;
  default:
    snprintf(error, error_size, "%s can't be opened: %s%s%s", store->path, sqlite3_errstr(result),
             errno != 0 ? ": " : "", errno != 0 ? strerror(errno) : "");
  }
  return false;
}

bool connection_open(struct store *store, char *error, size_t error_size) {
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
                    SQLITE_OPEN_PRIVATECACHE;
  errno = 0;
  int result = sqlite3_open_v2(store->path, &store->db, flags, store->options.vfs);
  if (result == SQLITE_OK) result = apply_settings(store);
  if (result == SQLITE_OK) flow_open(store);
  return result == SQLITE_OK || cannot_open(store, result, error, error_size);
}

bool connection_prepare(struct store *store, int first, int end, char *error, size_t error_size) {
  errno = 0;
  for (int i = first; i < end; i++) {
    int result = sqlite3_prepare_v3(store->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT,
                                    &store->statements[i], NULL);
    /* tables that are not as the schema has them */
    if (result == SQLITE_ERROR) result = SQLITE_CORRUPT;
    if (result != SQLITE_OK) return cannot_open(store, result, error, error_size);
  }
  return true;
}

void connection_close(struct store *store) {
  for (size_t i = 0; i < STATEMENT_COUNT; i++)
    sqlite3_finalize(store->statements[i]);
  sqlite3_close(store->db);
  flow_close(store);
  store->db = NULL;
}

sqlite3_stmt *statement_get(struct store *store, enum statement which) {
  sqlite3_stmt *statement = store->statements[which];
  sqlite3_reset(statement);
  return statement;
}

int statement_run(sqlite3_stmt *statement) {
  int result = sqlite3_step(statement);
  sqlite3_reset(statement);
  return result == SQLITE_DONE || result == SQLITE_ROW ? SQLITE_OK : result;
}

/* A null pointer would be stored as NULL, not as no bytes. */
int bind_blob(sqlite3_stmt *statement, int index, const void *data, size_t size) {
  return sqlite3_bind_blob64(statement, index, size ? data : "", size, SQLITE_STATIC);
}

static bool is_memory(int result) {
  return (result & 0xff) == SQLITE_NOMEM || (result & 0xff) == SQLITE_TOOBIG ||
         result == SQLITE_IOERR_NOMEM;
}

enum store_status status_of_reading(int result) {
  if (result == SQLITE_OK || result == SQLITE_ROW || result == SQLITE_DONE) return STORE_OK;
  return is_memory(result) ? STORE_NO_MEMORY : STORE_DAMAGED;
}

/* A quota is a full disk under another name. */
static bool is_full(struct store *store, int result) {
  return (result & 0xff) == SQLITE_FULL ||
         (result == SQLITE_IOERR_WRITE && sqlite3_system_errno(store->db) == EDQUOT);
}

static enum store_status status_of_writing(struct store *store, int result) {
  if (is_full(store, result)) return STORE_FULL;
  if (is_memory(result)) return STORE_NO_MEMORY;
  /* a chunk or a change that is there already: the engine is mistaken, not the disk */
  if ((result & 0xff) == SQLITE_CONSTRAINT) return STORE_DAMAGED;
  return STORE_FAILED;
}

/* Nothing is written from here on. */
static void give_up(struct store *store, int result) {
  if (atomic_load(&store->failure)) return;
  int number = sqlite3_system_errno(store->db);
  bool system = (result & 0xff) == SQLITE_IOERR && number != 0;
  snprintf(store->reason, sizeof store->reason, "writing %s failed: %s%s%s (SQLite's error %d)",
           store->path, sqlite3_errstr(result), system ? ": " : "", system ? strerror(number) : "",
           result);
  sqlite3_db_config(store->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)NULL);
  atomic_store(&store->failure, store->reason);
}

const char *store_failure(const struct store *store) {
  return atomic_load(&store->failure);
}

enum store_status transaction_end(struct store *store, enum store_status status) {
  for (int i = 0; i < STATEMENT_COUNT; i++)
    sqlite3_reset(store->statements[i]);
  if (!sqlite3_get_autocommit(store->db)) {
    int result = statement_run(statement_get(store, ROLL_BACK));
    if (!sqlite3_get_autocommit(store->db)) give_up(store, result ? result : SQLITE_ERROR);
  }
  store->root_before.next_id = store->root.next_id; /* an id that was given stays given */
  store->root = store->root_before;
  store->garbage.count = store->garbage_before;
  store->writing = store->begun = false;
  store->last = status;
  return status;
}

/* Whether the database is as it was before the transaction. */
static bool is_rolled_back(struct store *store) {
  struct root root;
  bool valid;
  return root_read(store, &root, &valid) == SQLITE_OK && valid &&
         root.commits == store->root.commits;
}

enum store_status transaction_fail(struct store *store, int result) {
  enum store_status status = status_of_writing(store, result);
  if (status == STORE_FAILED) give_up(store, result);
  bool was_writing = store->writing;
  transaction_end(store, status);
  /* Without a log the last step of a commit writes over the journal's head. Where
   * that fails in part, there is nothing left to roll back with. */
  if (status != STORE_FAILED && store->direct && !is_rolled_back(store)) {
    give_up(store, result);
    store->last = status = STORE_FAILED;
  }
  /* Where the database takes what is in the log, that can start anew, and there
   * may be room for something small, such as dropping a memory. */
  if (status == STORE_FULL && was_writing) {
    if (reserve_give(store)) store->made_room = true;
    store_checkpoint(store);
    store->scarce = true;
  }
  return status;
}

bool store_made_room(struct store *store) {
  const bool made = store && store->made_room;
  if (made) store->made_room = false;
  return made;
}

enum store_status transaction_check(const struct store *store) {
  if (store->writing) return STORE_OK;
  return store->last != STORE_OK ? store->last : STORE_FAILED;
}

void store_checkpoint(struct store *store) {
  if (store_failure(store) || store->direct) return;
  int in_log = 0, done = 0;
  int result =
      sqlite3_wal_checkpoint_v2(store->db, "main", SQLITE_CHECKPOINT_PASSIVE, &in_log, &done);
  const size_t usual = store->options.wal_bytes / store->page_bytes;
  if (result == SQLITE_OK && in_log == done) {
    store->wal_pages = 0;
    store->checkpoint_at = usual;
    return;
  }
  if (result != SQLITE_OK && status_of_writing(store, result) == STORE_FAILED)
    give_up(store, result);
  store->checkpoint_at = store->wal_pages + usual / 4;
}

/* ---- Transactions ---- */

/* Asks for a mode, or for none; SQLite answers with what it is now. */
static int ask_mode(struct store *store, const char *query) {
  sqlite3_stmt *statement;
  int result = sqlite3_prepare_v2(store->db, query, -1, &statement, NULL);
  if (result == SQLITE_OK) result = sqlite3_step(statement);
  const char *mode = result == SQLITE_ROW ? (const char *)sqlite3_column_text(statement, 0) : NULL;
  if (mode) store->direct = sqlite3_stricmp(mode, "wal") != 0;
  sqlite3_finalize(statement);
  return mode ? SQLITE_OK : result == SQLITE_ROW ? SQLITE_NOMEM : result;
}

/* Where there is no room to change it, the mode that is goes on: it is as good,
 * only slower. */
static void choose_mode(struct store *store, bool direct) {
  if (store->direct == direct) return;
  int result =
      ask_mode(store, direct ? "PRAGMA journal_mode = PERSIST" : "PRAGMA journal_mode = WAL");
  if (result != SQLITE_OK && status_of_writing(store, result) == STORE_FAILED)
    give_up(store, result);
  else if (result != SQLITE_OK && ask_mode(store, "PRAGMA journal_mode") != SQLITE_OK)
    give_up(store, result);
  if (store->direct)
    store->wal_pages = 0;
  else
    store->journal_reserved = false; /* the journal is gone */
}

void connection_settle(struct store *store) {
  if (store_failure(store)) return;
  choose_mode(store, false);
  store_checkpoint(store);
}

uint64_t room_left(const struct store *store) {
  struct statvfs disk;
  if (statvfs(store->directory, &disk) != 0) return UINT64_MAX;
  return (uint64_t)disk.f_bavail * disk.f_frsize;
}

/* Begins while what is in the log still fits into the database, and ends where
 * there is room for a whole log again. */
static void watch_room(struct store *store) {
  const uint64_t in_log = (uint64_t)store->wal_pages * store->page_bytes;
  if (!store->scarce && in_log == 0) return;
  const uint64_t room = room_left(store);
  store->scarce = room < 2 * (store->scarce ? (uint64_t)store->options.wal_bytes : in_log);
}

enum store_status store_begin(struct store *store) {
  if (store->wal_pages >= store->checkpoint_at) store_checkpoint(store);
  watch_room(store);
  store->last = STORE_FAILED;
  if (store_failure(store)) return STORE_FAILED;
  reserve_keep(store);
  connection_set_reading(store, false);
  store->root_before = store->root;
  store->garbage_before = store->garbage.count;
  store->bulk = store->chunk_bytes >= store->options.bulk_bytes;
  store->after_chunks = store->chunk_bytes > 0;
  store->chunk_bytes = 0;
  store->writing = true;
  store->begun = false;
  return STORE_OK;
}

void store_expect_chunks(struct store *store, size_t bytes) {
  store->bulk |= bytes >= store->options.bulk_bytes;
}

enum store_status transaction_write(struct store *store, bool chunk) {
  if (!store->writing || store->begun) return transaction_check(store);
  choose_mode(store, store->scarce || (chunk ? store->bulk : store->direct && store->after_chunks));
  if (store_failure(store)) return transaction_end(store, STORE_FAILED);
  if (store->direct && store->scarce) reserve_journal(store);
  int result = statement_run(statement_get(store, BEGIN_WRITE));
  if (result != SQLITE_OK) return transaction_fail(store, result);
  store->begun = true;
  return STORE_OK;
}

enum store_status store_commit(struct store *store) {
  if (!store->writing) return transaction_check(store);
  if (store->begun) {
    store->root.commits++;
    int result = root_write(store);
    if (result == SQLITE_OK) result = statement_run(statement_get(store, COMMIT_WRITE));
    if (result != SQLITE_OK) return transaction_fail(store, result);
    witness_write(store);
    flow_commit(store);
  }
  store->writing = store->begun = false;
  store->last = STORE_FAILED;
  return STORE_OK;
}

void store_rollback(struct store *store) {
  if (store->writing) transaction_end(store, STORE_FAILED);
}
