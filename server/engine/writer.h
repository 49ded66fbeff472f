/* The writer: the one thread that changes memories, and the store.
 *
 * Whoever wants a change describes it in a struct write and submits it; done()
 * tells when it is durable (where there is a store) and readers see it, or why
 * nothing has happened. */
#ifndef ENGINE_WRITER_H
#define ENGINE_WRITER_H

#include "base/problem.h"
#include "engine/budget.h"
#include "engine/memory.h"
#include "engine/registry.h"
#include "observe/log.h"
#include "observe/metrics.h"
#include "store/store.h"

enum write_kind {
  WRITE_PUT,      /* a new memory, or one in the place of another */
  WRITE_DELETE,   /* a memory */
  WRITE_ROWS,     /* appended, or put in the place of those with the same ids */
  WRITE_REMOVAL,  /* of rows by id */
  WRITE_SETTINGS, /* score, normalization, time to live */
  WRITE_BACKUP    /* a copy of the store */
};

/* Made by the asker, who owns it and all it points to; between submission and
 * done() it belongs to the writer. */
struct write {
  enum write_kind kind;
  const char *name;

  /* May the change happen, given the version there is (0: none)? NULL: it may. */
  bool (*allowed)(const void *context, int64_t version);
  const void *context;

  /* PUT. The writer numbers it and takes references of its own. */
  struct memory *memory;
  size_t charge;             /* what was taken from the budget for it; the writer gives it back */
  bool only_if_missing;      /* else nothing happens: not a failure */
  struct arriving *arriving; /* NULL, or what was given of it; the writer's from submission on */

  /* ROWS; REMOVAL has ids alone. */
  const float *keys, *values;
  size_t rows, key_dim, value_dim;
  struct id_list *ids;         /* distinct, or NULL */
  const char *idempotency_key; /* NULL: none */
  uint64_t fingerprint;

  /* SETTINGS: what is not NULL. */
  attn_score *score;
  attn_normalization *normalization;

  /* ROWS: of these rows. SETTINGS: of those to come. 0 means never. */
  int64_t ttl_ms;
  bool has_ttl; /* else as the memory says, or as it was */

  const char *path; /* BACKUP: a file to be made */

  /* ---- What came of it ---- */
  bool failed;
  struct problem problem; /* where it failed */
  bool created, existed;  /* PUT: there was none before; there was one already (only_if_missing) */
  int64_t version;
  size_t total, inserted, updated, deleted; /* ROWS, REMOVAL: rows */
  struct memory *after;                     /* PUT, SETTINGS: the new version, for done() to free */

  /* Called once, on the writer's thread; the write may be gone when it
   * returns. */
  void (*done)(struct write *write);
  struct write *next;
};

struct writer_config {
  struct registry *registry;
  struct budget *budget;
  struct store *store; /* NULL: nothing is kept; writer_free() closes it */
  struct log *log;
  struct metrics *metrics; /* NULL: nothing is counted */
  size_t max_memories, max_rows;
  size_t arriving_slice; /* bytes; 0: as usual. For tests */
  unsigned threads;      /* that loading may use beside the writer's own */
  bool huge_pages;       /* for what stays */
};

struct writer;

/* Starts the thread, which first loads what the store has and then works on what
 * was submitted. NULL where threads or memory are short: then the store remains
 * the caller's. */
struct writer *writer_create(const struct writer_config *config);

/* A large memory is to be put whose blocks can be given before they are all there
 * (engine/arriving.h): how many, and a snapshot of their shape. It goes with the
 * write, or is ended, before writer_free(). NULL where nothing is kept, or memory is
 * short: then it is stored when the write comes, as any other. */
struct arriving *writer_expect(struct writer *writer, const attn_snapshot *shape, size_t blocks);

/* False where the writer is to end: then nothing happens to the write. */
bool writer_submit(struct writer *writer, struct write *write);

/* The first does all that was submitted and ends the thread; later submissions
 * are refused. The second does that where it wasn't done, and closes the store.
 * Both accept NULL. */
void writer_finish(struct writer *writer);
void writer_free(struct writer *writer);

/* Waits until the store's memories are there; false where RAM did not suffice or
 * the writer is to end. */
bool writer_wait_loaded(struct writer *writer);

/* How far loading has come; by any thread. */
struct writer_progress {
  size_t memories, of_memories;
};
struct writer_progress writer_progress(const struct writer *writer);

/* Why nothing can be written any more; NULL while it can. By any thread. */
const char *writer_failure(const struct writer *writer);

#endif
