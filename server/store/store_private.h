/* What the files of the store share, and the handles that its tests need.
 *
 *     open.c      the order in which a store is opened and closed
 *     folder.c    the folder on the disk: made, locked, synced
 *     sqlite.c    the connection: settings, transactions, errors, checkpoints
 *     schema.c    tables and how they come to be
 *     root.c      the root and the heads: what says what all the rest has to be
 *     read.c      bases, chunks, changes, read and checked
 *     ahead.c     reading ahead of the chunks
 *     write.c     the same, written
 *     garbage.c   what nothing names any more
 *     flow.c      bulk writing and the kernel's cache
 *     reserve.c   room that is kept for a full disk
 *     witness.c   what was acknowledged at least
 *     backup.c    copies, and what is made of them
 *
 * How one thing vouches for the next:
 *
 *     witness -> root -> heads -> base, list of chunks -> chunks
 *                             `-> versions of the changes
 *
 * A thing that is not as the one before it says is damage of one memory, except
 * for the root and the heads, which concern all.
 *
 * Threads: a store belongs to one thread at a time; `failure` alone may be read
 * by any. */
#ifndef STORE_STORE_PRIVATE_H
#define STORE_STORE_PRIVATE_H

#include <sqlite3.h>
#include <stdatomic.h>

#include "store/checksum.h"
#include "store/store.h"

/* ---- For the tests ---- */

struct migration {
  const char *sql; /* from the version before; without BEGIN and COMMIT */
};

/* The steps that lead from nothing to today's tables; a store has as many
 * behind it as its version says. */
extern const struct migration store_migrations[];
extern const size_t store_migration_count;

struct store_options {
  const char *vfs; /* of SQLite; NULL is the usual one */
  const struct migration *migrations;
  size_t migration_count;
  size_t wal_bytes;  /* a write-ahead log beyond this is copied into the database */
  size_t page_bytes; /* of a new database */
  size_t bulk_bytes; /* of chunks that are expected, or were in the transaction before: bulk */
};

struct store_options store_usual_options(void);
struct store *store_open_with(const char *directory, const struct store_options *options,
                              char *error, size_t error_size);

/* ---- The store ---- */

/* The one row that changes with every commit. */
struct root {
  int64_t schema;
  int64_t commits;
  int64_t next_id;
  int64_t version_floor;
  int64_t heads;      /* how many there are */
  uint64_t heads_sum; /* of their checksums, modulo 2^64 */
};

struct head {
  struct store_memory memory;
  uint64_t list_sum; /* checksum of the base's list of chunks */
  uint64_t base_sum; /* checksum of the base's bytes */
  bool damaged;      /* found when the store was opened */
};

/* Something to be removed: a chunk, all chunks of an id (chunk 0), or the changes
 * of an id up to a version. */
struct garbage {
  int64_t id;
  int64_t chunk;
  int64_t changes_to; /* > 0: changes, not chunks */
};

struct garbage_queue {
  struct garbage *items;
  size_t first, count, capacity; /* items first .. count - 1 are to be removed */
};

enum statement {
  BEGIN_WRITE,
  COMMIT_WRITE,
  ROLL_BACK,
  READ_ROOT,
  WRITE_ROOT,
  READ_HEADS,
  READ_HEAD,
  WRITE_HEAD,
  DELETE_HEAD,
  READ_BASE,
  READ_LIST,
  WRITE_BASE,
  DELETE_BASE,
  FIND_CHUNK,
  WRITE_CHUNK,
  SCAN_CHUNKS,
  CHUNKS_OF,
  COUNT_PAGES,
  NEXT_CHUNK,
  LAST_CHUNK,
  DESCRIBE_CHUNK,
  DELETE_CHUNK,
  READ_CHANGES,
  WRITE_CHANGE,
  NEXT_CHANGED,
  FIRST_CHANGE,
  DELETE_CHANGE,
  COPY_INTO,
  STATEMENT_COUNT
};

struct store {
  struct store_options options;
  char *directory, *path;     /* the folder, and the database in it */
  int lock, witness, reserve; /* descriptors, -1 where there is none; so is ... */
  int file;                   /* ... the database's, for advice */
  sqlite3 *db;
  sqlite3_stmt *statements[STATEMENT_COUNT];

  struct root root, root_before; /* now, and before the transaction */
  struct head *heads;            /* as the store was opened, in order of ids */
  size_t head_count;

  bool writing;           /* a transaction is under way ... */
  bool begun;             /* ... and has written something */
  bool direct;            /* SQLite writes into the database, not into a log */
  bool reading;           /* chunks, one after the other: the page cache is small */
  bool scarce;            /* so little room is left that a log is in the way */
  bool reserved;          /* the reserve has its room ... */
  bool journal_reserved;  /* ... or the journal has */
  bool made_room;         /* since the last time somebody asked */
  bool bulk;              /* many chunks are expected: this one may be written directly */
  bool after_chunks;      /* the last one had some: what is direct stays so */
  size_t chunk_bytes;     /* put in this transaction, or in the last one */
  size_t flowing;         /* of these, since the kernel was told to write */
  enum store_status last; /* what ended the last one */
  struct garbage_queue garbage;
  size_t garbage_before;

  size_t page_bytes;
  size_t wal_pages;     /* in the log, after the last commit */
  size_t checkpoint_at; /* pages; later than usual after one that found no room */

  uint64_t fetched, advised; /* bytes of chunks, and of the file */

  char reason[512];              /* written once, before `failure` points here */
  _Atomic(const char *) failure; /* NULL, or `reason` */
};

/* ---- sqlite.c ---- */

/* False with a sentence in `error`. */
bool connection_open(struct store *store, char *error, size_t error_size);
/* The statements from `first` to before `end`. */
bool connection_prepare(struct store *store, int first, int end, char *error, size_t error_size);
void connection_close(struct store *store);

/* Chunks are read from here on, or all else is done. */
void connection_set_reading(struct store *store, bool reading);

/* The statement, without values. */
sqlite3_stmt *statement_get(struct store *store, enum statement which);
/* Runs one that gives no rows, and makes it ready for the next time. */
int statement_run(sqlite3_stmt *statement);
/* The bytes have to stay until the statement has run. */
int bind_blob(sqlite3_stmt *statement, int index, const void *data, size_t size);

/* What a result of SQLite's means while reading; SQLITE_OK, _ROW and _DONE are
 * STORE_OK. */
enum store_status status_of_reading(int result);

/* Ends the transaction after `result`, an error, and says what that means. */
enum store_status transaction_fail(struct store *store, int result);
/* The same where it was not SQLite that objected. */
enum store_status transaction_end(struct store *store, enum store_status status);
/* STORE_OK where one is under way, else what ended it. */
enum store_status transaction_check(const struct store *store);
/* The same, before something is written: with that it really begins. */
enum store_status transaction_write(struct store *store, bool chunk);

/* Bytes on the disk that the store could use. */
uint64_t room_left(const struct store *store);

/* Copies the log into the database. An error is the next write's, never that of
 * a commit that is durable already. */
void store_checkpoint(struct store *store);
/* All that is committed goes into the database, as a close wants it. */
void connection_settle(struct store *store);

/* ---- schema.c ---- */

/* A number that a query without values gives. */
int read_number(struct store *store, const char *query, int64_t *number);

/* Makes the tables, or brings them up to date; reads the root and holds it against
 * what the witness knows. */
bool schema_prepare(struct store *store, int64_t witnessed, char *error, size_t error_size);

/* ---- root.c ---- */

int root_read(struct store *store, struct root *root, bool *valid);
int root_write(struct store *store);
/* All heads, held against the root. */
bool heads_load(struct store *store, char *error, size_t error_size);
/* STORE_DAMAGED where there is none. */
enum store_status head_read(struct store *store, int64_t id, struct head *head);
/* In a transaction; `before` is NULL for a new one. */
int head_write(struct store *store, const struct head *before, const struct head *head);
int head_delete(struct store *store, const struct head *head);

/* ---- read.c: the list of a base, as LIST_ENTRY bytes for each chunk ---- */

enum { LIST_ENTRY = 16 };

static inline int64_t list_chunk(const void *list, size_t index) {
  return (int64_t)bytes_load_u64((const unsigned char *)list + index * LIST_ENTRY);
}

/* For qsort() and bsearch() by the chunks' numbers. */
static inline int list_compare(const void *a, const void *b) {
  const int64_t x = list_chunk(a, 0), y = list_chunk(b, 0);
  return (x > y) - (x < y);
}

static inline uint64_t list_sum(const void *list, size_t index) {
  return bytes_load_u64((const unsigned char *)list + index * LIST_ENTRY + 8);
}

enum store_status list_read(struct store *store, const struct head *head, struct buffer *out);

/* ---- ahead.c ---- */

/* A chunk of so many bytes was read, and the next ones will be. */
void ahead_of(struct store *store, size_t bytes);

/* ---- garbage.c ---- */

bool garbage_add(struct garbage_queue *queue, struct garbage item);
void garbage_free(struct garbage_queue *queue);
/* Compares the lists of all bases with the chunks that are there: marks heads as
 * damaged, queues what is not named. False only where memory is short. */
bool garbage_scan(struct store *store);

/* ---- flow.c ---- */

void flow_open(struct store *store);
void flow_close(struct store *store); /* after SQLite has closed the file */
void flow_chunk(struct store *store, size_t bytes);
void flow_commit(struct store *store);

/* ---- witness.c ---- */

/* The commits that are known to have been acknowledged, 0 where nothing is
 * known. Opens or makes the file. */
int64_t witness_open(struct store *store);
void witness_write(struct store *store);

/* ---- reserve.c ---- */

void reserve_open(struct store *store);
/* Where there is room, and SQLite writes through its log. */
void reserve_keep(struct store *store);
/* The same when the connection is closed, and with it the journal gone. */
void reserve_keep_closed(struct store *store);
/* True where that has made room. */
bool reserve_give(struct store *store);
/* Gives the journal's file that much room, in direct mode. */
void reserve_journal(struct store *store);
void reserve_close(struct store *store);

/* ---- folder.c ---- */

/* To be freed. NULL where memory is short. */
char *path_in(const char *directory, const char *name);
bool folder_make(const char *directory, char *error, size_t error_size);
/* The descriptor that holds the lock, or -1 with a sentence. */
int folder_lock(const char *directory, char *error, size_t error_size);
bool folder_sync(const char *directory);
bool folder_sync_above(const char *path);
/* A file only the owner may read; makes it where it is missing. */
bool file_make(const char *path);

#define DATABASE_NAME "store.db"
#define WITNESS_NAME  "witness"
#define LOCK_NAME     "lock"
#define RESERVE_NAME  "reserve"
#define RESTORE_NAME  "restore.tmp"

/* ---- open.c ---- */

/* Not opened yet; NULL where memory is short. */
struct store *store_create(const char *directory, const char *name,
                           const struct store_options *options);
/* Opens the database and checks what concerns all memories. Makes no use of the
 * witness where there is no lock. False with a sentence. */
bool store_load(struct store *store, char *error, size_t error_size);
/* Closes it and leaves the files as they are. */
void store_abandon(struct store *store);

#endif
