/* What is durable: memories as bytes, behind an interface that knows nothing of
 * rows.
 *
 * A memory in the store is a *base* (what the engine says of it at one version,
 * with the list of its *chunks*: immutable runs of bytes of about 1 MiB) and the
 * *changes* made since, one per version, in order. Reading the base, its chunks
 * and then the changes gives back what was committed last. A changed base (a
 * fold) shares the chunks that did not change and drops the changes up to its
 * version; a memory that is replaced whole gets a new id, under which its chunks
 * were put before, and the old id is dropped in the same transaction.
 *
 * Everything that is read back is checked: each of these has a checksum that
 * covers what it is as well as its bytes, so that nothing can be lost, be taken
 * for something else, or go back to an older state without being noticed.
 *
 * Threads: a store belongs to one thread at a time. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

enum store_status {
  STORE_OK,
  STORE_FULL,      /* the disk is; nothing of the transaction has happened, later ones may work */
  STORE_NO_MEMORY, /* nothing of the transaction has happened */
  STORE_DAMAGED,   /* what was read is not what was written */
  STORE_FAILED     /* an I/O error: from now on every write fails, see store_failure() */
};

struct store;

/* Opens the store in `directory`, which is made where it is missing (its parent
 * must be there), and locks it: a second daemon is refused. Makes or migrates
 * the tables, and looks for damage that concerns more than one memory. NULL with
 * a sentence in `error`. */
struct store *store_open(const char *directory, char *error, size_t error_size);
void store_close(struct store *store); /* accepts NULL; rolls back what was begun */

/* ---- Reading, before anything is written ---- */

#define STORE_NAME_MAX 128

struct store_memory {
  int64_t id; /* > 0, never used twice */
  char name[STORE_NAME_MAX + 1];
  int64_t base_version; /* of the base ... */
  int64_t version;      /* ... and after the last change */
};

/* The memories in order of their ids; false past the end. */
bool store_memory_at(const struct store *store, size_t index, struct store_memory *memory);

/* Appends the bytes to `out`. STORE_DAMAGED where they are missing or not as
 * they were written. */
enum store_status store_read_base(struct store *store, int64_t id, struct buffer *out);
enum store_status store_read_chunk(struct store *store, int64_t id, int64_t chunk,
                                   struct buffer *out);

/* The same in two steps, so that the second can be another thread's: the bytes as
 * they are there, with the checksum that they have to have, and whether they have
 * it, which any thread may ask. What was not asked about is not to be trusted. */
enum store_status store_fetch_chunk(struct store *store, int64_t id, int64_t chunk,
                                    struct buffer *out, uint64_t *sum);
bool store_chunk_is_sound(int64_t id, int64_t chunk, uint64_t sum, const struct buffer *bytes);

/* The largest number that a chunk of the id has, garbage included; 0 without one.
 * New ones have to be above it. */
enum store_status store_last_chunk(struct store *store, int64_t id, int64_t *chunk);

/* Calls take() with each change after the base, in order of versions, without a
 * gap; where it returns false, stops and returns STORE_OK. */
typedef bool store_take_change(void *context, int64_t version, const void *data, size_t size);
enum store_status store_read_changes(struct store *store, int64_t id, store_take_change *take,
                                     void *context);

/* The largest version that a dropped memory had, 0 without one: a name that is
 * used again has to start above it. */
int64_t store_version_floor(const struct store *store);

/* ---- Writing ----
 * Between store_begin() and store_commit(); anything but STORE_OK has rolled
 * the transaction back, and the calls that follow say the same until the next
 * store_begin(). A committed transaction is durable when store_commit() returns.
 * STORE_DAMAGED where what is asked for doesn't go with what is there: a chunk
 * that was put before, a base that names one that wasn't, a version that isn't
 * the next. One base, chunk or change has less than 10^9 bytes, else it is
 * STORE_NO_MEMORY. */

/* An id for a new memory or for a replacement. No transaction is needed. */
int64_t store_new_id(struct store *store);

enum store_status store_begin(struct store *store);
/* Chunks of about so many bytes are to be put, in this transaction and others that
 * follow; before the first one is. */
void store_expect_chunks(struct store *store, size_t bytes);
enum store_status store_commit(struct store *store);
void store_rollback(struct store *store); /* nothing where nothing was begun */

/* Whether the store has given up room of its own after STORE_FULL, so that the
 * same may work now. Says so once. Accepts NULL. */
bool store_made_room(struct store *store);

/* `chunk` > 0, unused under that id. A chunk that no base names is removed when
 * the store is opened the next time. */
enum store_status store_put_chunk(struct store *store, int64_t id, int64_t chunk, const void *data,
                                  size_t size);

/* No base will name that chunk, which was put in an earlier transaction: so that
 * it becomes garbage now and not when the store is opened the next time. No
 * transaction may be under way. */
void store_abandon_chunk(struct store *store, int64_t id, int64_t chunk);

struct store_base {
  int64_t id;
  const char *name;
  int64_t version;       /* the changes up to it are dropped, later ones are kept */
  const int64_t *chunks; /* in the engine's order; all have been put, also in this transaction */
  size_t chunk_count;
  const void *data;
  size_t size;
};

/* A new memory, or a new base for one. Chunks that it no longer names become
 * garbage (store_sweep()). */
enum store_status store_put_base(struct store *store, const struct store_base *base);

/* `version` is one more than the memory's version so far. */
enum store_status store_put_change(struct store *store, int64_t id, int64_t version,
                                   const void *data, size_t size);

/* The memory is gone; its chunks and changes become garbage. `version`: for the
 * floor. An id that has chunks and no base yet may be dropped too. */
enum store_status store_drop_memory(struct store *store, int64_t id, int64_t version);

/* Removes garbage of about `bytes` in a transaction of its own (none may be under
 * way); `more` says whether some is left. */
enum store_status store_sweep(struct store *store, size_t bytes, bool *more);

/* ---- The whole of it ---- */

/* Why writes fail since STORE_FAILED; NULL while they do not. May be asked by
 * any thread. */
const char *store_failure(const struct store *store);

/* Writes a consistent copy to a new file at `path`, as it is after the last
 * commit. No transaction may be under way. STORE_FAILED with a reason in errno
 * where `path` can't be written; the store itself has not failed then. */
enum store_status store_backup(struct store *store, const char *path);

/* What copies in the store's own folder are called, to be made and sent: "backup.tmp-"
 * and what the asker likes. Those that a process has left are removed when the
 * store is opened. */
#define STORE_COPY_PREFIX "backup.tmp-"

/* The folder, for a temporary file next to the data. */
const char *store_directory(const struct store *store);

/* Checks the copy in `file` whole, and makes it the store of `directory`, which
 * must hold none. False with a sentence in `error`. */
bool store_restore(const char *file, const char *directory, char *error, size_t error_size);

#endif
