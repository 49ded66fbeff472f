/* The writer's thread.
 *
 * Writes are submitted to a queue (write_queue.c). The thread takes what is there,
 * all of it, applies write after write to the memories' tips and puts the records
 * into one transaction: that is the group commit, and it needs no delay, because
 * while one transaction becomes durable the next batch gathers by itself. Then, in
 * this order: commit, publish the new versions, tell the askers. So nobody ever sees
 * what a crash could take back.
 *
 * What would hold others up is done in slices, one between two batches: storing
 * large new memories, some before they have come whole (arriving.c), folding
 * (staging.c), sweeping away what folds, deletes and replacements leave behind, and
 * moving what stays into huge pages (promoter.c).
 * Who writes little waits for a slice at the most, so slices are small while there
 * are others to wait. A backup is not done so: SQLite copies the store in one go, and
 * writes wait for it.
 *
 * Appends of a row by one client while another imported 1 GB: 99 % took less than
 * 38 ms (1.4 without an import), with slices of 64 MiB 75 and of 8 MiB 26; the import
 * took 2.9 s, with those 2.0 and 3.6. That was before the store kept its mode between
 * slices (store/sqlite.c), which took another part of both.
 *
 * A disk that is full fails the batch. Where that had more than one write they
 * are tried again one by one, and each anew while room can be made (sweeper.c), since
 * a small one may still fit; so they are where RAM was short. An I/O error fails
 * everything from then on (store.h): readers go on. A chore that fails is left alone
 * for a while.
 *
 * Rows that expire are removed by a change of their own in front of a batch, when
 * their time comes; readers don't wait for that (memory_at_time()).
 *
 * Rejected: a lock per memory and writers on the requests' threads. They would
 * meet at the disk all the same, every order of locks would have to be thought
 * through, and the group commit would need a wait.
 *
 * Owners: `loading` by `mutex`, which is held with no other; the two counts of
 * loading are atomic; the queue by its own. All else, the tips, the store, the
 * staging and the registry's contents, is the thread's alone. */
#include "engine/writer.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"
#include "engine/arriving.h"
#include "engine/copying.h"
#include "engine/load.h"
#include "engine/promoter.h"
#include "engine/refusal.h"
#include "engine/staging.h"
#include "engine/sweeper.h"
#include "engine/tips.h"
#include "engine/write_queue.h"

/* Bytes per slice, and while there are other writes; writes per batch; how often room
 * may be made for a write. */
enum { SLICE = 64 << 20, SMALL_SLICE = 16 << 20, MOST_WRITES = 1024, MOST_ATTEMPTS = 8 };

/* After a write others are expected for so long. */
static const double BUSY_SECONDS = 1;

/* Milliseconds between attempts to publish where RAM is short. */
enum { RETRY_MS = 20 };

/* Between the failure of a fold and the next attempt. */
static const double REST_SECONDS = 5;

struct writer {
  struct writer_config config;
  pthread_t thread;
  bool started;
  struct write_queue queue;
  pthread_mutex_t mutex;
  pthread_cond_t loading_ended;
  enum { LOADING, LOADED, LOADING_FAILED } loading;
  atomic_size_t loaded_memories, of_memories;

  /* the thread's */
  struct tips *tips;
  struct arrivals *arrivals; /* NULL without a store; others give to it */
  struct tip *batch;         /* those that the batch under way has to do with */
  size_t memory_count;
  int64_t floor;                  /* the largest version of a deleted memory */
  struct staging *staging;        /* in order; a fold is alone */
  struct tip *folds, **last_fold; /* those that are due */
  bool fold_failed;               /* the last one, which has been logged */
  bool failure_noted;             /* the store's */
  struct sweeper sweeper;
  struct promoter promoter;
  double rest_until, busy_until; /* in clock_seconds() */
};

/* ---- Tips ---- */

static void join_batch(struct writer *writer, struct tip *tip) {
  if (tip->in_batch) return;
  tip->in_batch = true;
  tip->next_in_batch = writer->batch;
  writer->batch = tip;
}

static void want_fold(struct writer *writer, struct tip *tip) {
  if (!writer->config.store || tip->folds || !staging_is_due(tip)) return;
  tip->folds = true;
  tip->next_to_fold = NULL;
  *writer->last_fold = tip;
  writer->last_fold = &tip->next_to_fold;
}

static void unwant_fold(struct writer *writer, struct tip *tip) {
  struct tip **at = &writer->folds;
  if (!tip->folds) return;
  while (*at != tip)
    at = &(*at)->next_to_fold;
  *at = tip->next_to_fold;
  if (!*at) writer->last_fold = at;
  tip->folds = false;
}

/* That of a memory that is gone. */
static void drop_tip(struct writer *writer, struct tip *tip) {
  for (struct staging *s = writer->staging; s; s = s->next)
    if (s->tip == tip) s->tip = NULL;
  unwant_fold(writer, tip);
  tips_drop(writer->tips, tip);
}

/* ---- Publishing ---- */

static void pause_ms(long ms) {
  const struct timespec time = {.tv_nsec = ms * 1000000};
  nanosleep(&time, NULL);
}

/* What is durable has to be shown: where RAM is short it is tried until it
 * works. */
static void publish(struct writer *writer, struct tip *tip) {
  struct registry *registry = writer->config.registry;
  struct memory *memory = tip->now.memory;
  if (memory == tip->published.memory) return;
  promoter_want(&writer->promoter);
  if (memory)
    while (!registry_put(registry, memory_ref(memory))) {
      memory_free(memory);
      pause_ms(RETRY_MS);
    }
  else
    while (!registry_remove(registry, tip->name))
      pause_ms(RETRY_MS);
}

/* ---- A batch ---- */

/* Said once, whatever met it: a write, a fold, or the removal of garbage. */
static void note_failure(struct writer *writer) {
  const char *failure = writer_failure(writer);
  if (!failure || writer->failure_noted) return;
  writer->failure_noted = true;
  LOG(writer->config.log, LOG_ERROR, "store_failed", log_text("reason", failure));
}

static void fail_for_store(struct writer *writer, struct write *write, enum store_status status) {
  note_failure(writer);
  write_refuse(write, status, writer_failure(writer));
}

static void apply_put(struct writer *writer, struct write *write, const struct staged *staged,
                      struct tip_context *context) {
  struct tip *tip = tips_get(writer->tips, write->name);
  if (!tip) {
    context->status = STORE_NO_MEMORY;
    return;
  }
  join_batch(writer, tip);
  const bool exists = tip->now.memory != NULL;
  if (exists && write->only_if_missing) {
    write->existed = true;
    return;
  }
  if (!tip_check(tip, write)) return;
  if (!exists && writer->memory_count >= writer->config.max_memories) {
    write->failed = true;
    problem_set(&write->problem, PROBLEM_TOO_MANY_MEMORIES, "",
                "there are %zu memories, and there may not be more; delete one first",
                writer->memory_count);
    return;
  }
  struct staged fresh = {.kept = NULL};
  if (!staged) {
    if (context->store) fresh.place = kept_new_place(context->store);
    staged = &fresh;
  }
  const int64_t version = (exists ? tip->now.version : writer->floor) + 1;
  tip_put(tip, write, version, staged, context);
  writer->memory_count += !exists;
}

static void apply_delete(struct writer *writer, struct tip *tip, struct write *write,
                         struct tip_context *context) {
  if (!tip_check(tip, write)) return;
  if (tip->now.version > writer->floor) writer->floor = tip->now.version;
  tip_delete(tip, context);
  writer->memory_count--;
}

static void apply(struct writer *writer, struct write *write, const struct staged *staged,
                  struct tip_context *context) {
  if (write->kind == WRITE_PUT) {
    apply_put(writer, write, staged, context);
    return;
  }
  struct tip *tip = tips_find(writer->tips, write->name);
  if (!tip || !tip->now.memory) {
    write->failed = true;
    problem_set(&write->problem, PROBLEM_MEMORY_NOT_FOUND, "", "there is no memory named \"%s\"",
                write->name);
    return;
  }
  join_batch(writer, tip);
  if (write->kind == WRITE_DELETE)
    apply_delete(writer, tip, write, context);
  else if (write->kind == WRITE_ROWS)
    tip_rows(tip, write, context);
  else if (write->kind == WRITE_REMOVAL)
    tip_remove(tip, write, context);
  else
    tip_settle(tip, write, context);
}

static void expire(struct writer *writer, struct tip_context *context) {
  struct tip *tip;
  while (context->status == STORE_OK && (tip = tips_take_due(writer->tips, context->wall_ms))) {
    join_batch(writer, tip);
    tip_expire(tip, context);
  }
}

/* The batch is durable, or has not happened. */
static void settle_batch(struct writer *writer, bool durable) {
  while (writer->batch) {
    struct tip *tip = writer->batch;
    writer->batch = tip->next_in_batch;
    tip->in_batch = false;
    if (tip->touched && durable) {
      publish(writer, tip);
      tip_commit(tip, writer->config.budget);
    } else if (tip->touched || tip->reserved > 0) {
      tip_forget(tip, writer->config.budget);
    }
    tips_schedule(writer->tips, tip);
    if (tip->published.memory)
      want_fold(writer, tip);
    else
      drop_tip(writer, tip);
  }
}

/* A write that comes with what was staged for it is the only one of its batch. */
struct batch {
  struct write *first;
  const struct staged *staged;
  bool expire;
};

static void count(const struct writer *writer, enum metric metric) {
  if (writer->config.metrics) metrics_add(writer->config.metrics, metric, 1);
}

static enum store_status run_batch(struct writer *writer, const struct batch *batch) {
  struct store *store = writer->config.store;
  const double began = clock_seconds();
  struct tip_context context = {.store = store,
                                .budget = writer->config.budget,
                                .max_rows = writer->config.max_rows,
                                .wall_ms = clock_wall_ms(),
                                .status = store ? store_begin(store) : STORE_OK};
  const int64_t floor = writer->floor;
  const size_t memory_count = writer->memory_count;
  if (batch->expire && context.status == STORE_OK) expire(writer, &context);
  for (struct write *write = batch->first; write && context.status == STORE_OK; write = write->next)
    apply(writer, write, batch->staged, &context);
  for (struct tip *tip = writer->batch; tip && context.status == STORE_OK; tip = tip->next_in_batch)
    if (!tip_gather_in(tip)) context.status = STORE_NO_MEMORY;
  if (store && context.status == STORE_OK)
    context.status = store_commit(store);
  else if (store)
    store_rollback(store);
  if (context.status != STORE_OK) {
    writer->floor = floor;
    writer->memory_count = memory_count;
  }
  settle_batch(writer, context.status == STORE_OK);
  if (store && context.status == STORE_OK)
    writer->sweeper.garbage = true; /* the store knows how much */
  if (writer->config.metrics && context.status == STORE_OK)
    metrics_observe(writer->config.metrics, HISTOGRAM_COMMIT_SECONDS, clock_seconds() - began);
  return context.status;
}

static void finish(struct writer *writer, struct write *write) {
  if (write->kind != WRITE_BACKUP)
    count(writer, write->failed ? METRIC_WRITES_REFUSED : METRIC_WRITES);
  budget_give(writer->config.budget, write->charge);
  write->charge = 0;
  arriving_end(write->arriving);
  write->arriving = NULL;
  write->done(write);
}

static void finish_all(struct writer *writer, struct write *write) {
  while (write) {
    struct write *next = write->next;
    finish(writer, write);
    write = next;
  }
}

static void rest(struct writer *writer) {
  writer->rest_until = clock_seconds() + REST_SECONDS;
}

static bool is_rested(const struct writer *writer) {
  return clock_seconds() >= writer->rest_until;
}

static void run_writes(struct writer *writer, struct write *first, bool expire) {
  const struct batch batch = {.first = first, .expire = expire};
  enum store_status status = run_batch(writer, &batch);
  const bool alone = first && !first->next && !expire;
  for (int left = MOST_ATTEMPTS; alone && status == STORE_FULL && left > 0; left--) {
    if (!sweeper_make_room(&writer->sweeper)) break;
    write_reset(first);
    status = run_batch(writer, &batch);
  }
  if (status != STORE_OK && expire) rest(writer);
  if ((status == STORE_FULL || status == STORE_NO_MEMORY) && first && !alone) {
    while (first) {
      struct write *next = first->next;
      first->next = NULL;
      write_reset(first);
      run_writes(writer, first, false);
      first = next;
    }
    return;
  }
  for (struct write *write = first; write && status != STORE_OK; write = write->next)
    fail_for_store(writer, write, status);
  finish_all(writer, first);
}

/* ---- Chores ---- */

/* Not what would be refused as things are: so that it isn't stored for nothing. */
static bool has_to_be_staged(struct writer *writer, const struct write *write) {
  if (write->kind != WRITE_PUT || !writer->config.store || !staging_is_worth_it(write->memory))
    return false;
  const struct tip *tip = tips_find(writer->tips, write->name);
  const bool exists = tip && tip->now.memory;
  if (exists && write->only_if_missing) return false;
  return !write->allowed || write->allowed(write->context, exists ? tip->now.version : 0);
}

static bool stage_write(struct writer *writer, struct write *write) {
  struct staging **last = &writer->staging;
  while (*last)
    last = &(*last)->next;
  *last = staging_of_write(write, writer->config.store);
  return *last != NULL;
}

/* Takes large new memories out of the queue. */
static struct write *stage_large(struct writer *writer, struct write *first) {
  for (struct write **at = &first; *at;) {
    struct write *write = *at, *next = write->next;
    if (has_to_be_staged(writer, write) && stage_write(writer, write)) {
      write->next = NULL;
      *at = next;
    } else {
      at = &write->next;
    }
  }
  return first;
}

static void begin_fold(struct writer *writer) {
  while (writer->folds && !writer->staging) {
    struct tip *tip = writer->folds;
    unwant_fold(writer, tip);
    if (!staging_is_due(tip)) continue;
    writer->staging = staging_of_fold(tip);
    if (writer->staging) return;
    want_fold(writer, tip);
    rest(writer);
    return;
  }
}

/* True where the fold's chunks belong to the memory from here on. */
static bool end_fold(struct writer *writer, struct staging *staging, enum store_status status) {
  const char *name = staging->memory->name;
  if (status == STORE_OK) status = staging_finish_fold(staging);
  if (status == STORE_OK) count(writer, METRIC_FOLDS);
  if (status != STORE_OK) {
    rest(writer);
    if (!writer->fold_failed)
      LOG(writer->config.log, LOG_WARNING, "fold_failed", log_text("memory", name),
          log_text("reason", status == STORE_FULL        ? "the disk is full"
                             : status == STORE_NO_MEMORY ? "there is not enough memory"
                                                         : "the store has failed"));
  }
  writer->fold_failed = status != STORE_OK;
  want_fold(writer, staging->tip);
  return status == STORE_OK;
}

/* True where the memory was put. */
static bool end_write(struct writer *writer, struct staging *staging, enum store_status status) {
  struct write *write = staging->write;
  const struct batch batch = {.first = write, .staged = &staging->staged};
  if (status == STORE_OK) status = run_batch(writer, &batch);
  if (status != STORE_OK) fail_for_store(writer, write, status);
  const bool put = !write->failed && !write->existed;
  finish(writer, write);
  return put;
}

static bool is_busy(const struct writer *writer) {
  return clock_seconds() < writer->busy_until;
}

static size_t slice_bytes(const struct writer *writer) {
  return is_busy(writer) ? SMALL_SLICE : SLICE;
}

/* One slice of the staging at the front. A fold can wait for the next start. */
static void stage_on(struct writer *writer, bool end) {
  struct staging *staging = writer->staging;
  enum store_status status = STORE_OK;
  bool used = false;
  const bool useless = staging_is_stale(staging) || (end && !staging->write);
  if (!useless) {
    status = staging_store(staging, end ? SLICE : slice_bytes(writer));
    if (status == STORE_OK && !staging->complete) return;
  }
  writer->staging = staging->next;
  if (staging->write)
    used = end_write(writer, staging, status);
  else if (!useless)
    used = end_fold(writer, staging, status);
  else if (staging->tip)
    want_fold(writer, staging->tip);
  if (!used) staging_abandon(staging);
  writer->sweeper.garbage = true;
  staging_free(staging);
}

/* What comes of an arrival that has ended is garbage. */
static void arrive(struct writer *writer) {
  arrivals_work(writer->arrivals, slice_bytes(writer));
  writer->sweeper.garbage = true;
}

/* ---- Backups ---- */

static struct write *take_backups(struct writer *writer, struct write *first) {
  for (struct write **at = &first; *at;) {
    struct write *write = *at;
    if (write->kind != WRITE_BACKUP) {
      at = &write->next;
      continue;
    }
    *at = write->next;
    write->next = NULL;
    write_copy(write, writer->config.store);
    note_failure(writer);
    finish(writer, write);
  }
  return first;
}

/* ---- The thread ---- */

static bool load_all(struct writer *writer, const struct loader *loader) {
  struct store *store = loader->store;
  struct store_memory stored;
  size_t count = 0;
  const double began = clock_seconds();
  while (store_memory_at(store, count, &stored))
    count++;
  atomic_store(&writer->of_memories, count);
  for (size_t i = 0; i < count && store_memory_at(store, i, &stored); i++) {
    if (write_queue_is_ending(&writer->queue)) return false;
    struct tip *tip = tips_get(writer->tips, stored.name);
    if (!tip || !load_tip(tip, loader, &stored)) return false;
    tips_schedule(writer->tips, tip);
    want_fold(writer, tip);
    struct memory *memory = tip->published.memory;
    if (memory->damaged)
      LOG(writer->config.log, LOG_ERROR, "memory_damaged", log_text("memory", stored.name),
          log_text("reason", memory->damaged));
    if (!registry_put(writer->config.registry, memory_ref(memory))) {
      memory_free(memory);
      return false;
    }
    writer->memory_count++;
    atomic_store(&writer->loaded_memories, i + 1);
  }
  if (count > 0) promoter_want(&writer->promoter);
  writer->floor = store_version_floor(store);
  const double seconds = clock_seconds() - began;
  const double bytes = (double)atomic_load(&writer->config.budget->used);
  LOG(writer->config.log, LOG_INFO, "store_loaded", log_text("folder", store_directory(store)),
      log_integer("memories", (int64_t)count), log_number("megabytes", bytes / 1e6),
      log_number("seconds", seconds),
      log_number("megabytes_per_second", seconds > 0 ? bytes / 1e6 / seconds : 0));
  return true;
}

static bool load(struct writer *writer) {
  if (!writer->config.store) return true;
  const struct loader loader = {.store = writer->config.store,
                                .decoders = decoders_create(writer->config.threads),
                                .budget = writer->config.budget};
  const bool loaded = loader.decoders && load_all(writer, &loader);
  decoders_free(loader.decoders);
  return loaded;
}

static bool is_store_usable(const struct writer *writer) {
  return writer->config.store && !store_failure(writer->config.store);
}

static bool is_arriving(const struct writer *writer) {
  return writer->arrivals && arrivals_are_due(writer->arrivals);
}

/* How long the thread may sleep where nobody writes; INT64_MAX: for ever. The wall
 * clock may be set, so what it says is not believed for more than a second. */
static int64_t idle_ms(void *context) {
  const struct writer *writer = context;
  const int64_t soonest = tips_soonest(writer->tips), now = clock_wall_ms();
  const double resting = writer->rest_until - clock_seconds();
  const double chore =
      1000 * fmin(sweeper_wait(&writer->sweeper, false), promoter_wait(&writer->promoter));
  int64_t ms = INT64_MAX;
  if (writer->staging || is_arriving(writer)) return 0;
  if (soonest != NEVER_EXPIRES)
    ms = soonest <= now ? 0 : soonest - now < 1000 ? soonest - now : 1000;
  if (is_store_usable(writer) && writer->folds) ms = 0;
  if (resting > 0 && ms < INT64_MAX && (double)ms < 1000 * resting)
    ms = (int64_t)(1000 * resting) + 1;
  return chore < (double)ms ? (int64_t)ceil(chore) : ms;
}

static void do_chores(struct writer *writer, bool busy, bool end) {
  const bool able = !end && is_store_usable(writer) && is_rested(writer);
  if (able) begin_fold(writer);
  if (writer->staging)
    stage_on(writer, end);
  else if (is_arriving(writer))
    arrive(writer);
  else if (!end && sweeper_wait(&writer->sweeper, busy) <= 0)
    sweeper_run(&writer->sweeper, busy);
  else if (!end && promoter_wait(&writer->promoter) <= 0)
    promoter_run(&writer->promoter, is_busy(writer));
}

static void *run(void *context) {
  struct writer *writer = context;
  const bool loaded = load(writer);
  note_failure(writer); /* of its opening */
  pthread_mutex_lock(&writer->mutex);
  writer->loading = loaded ? LOADED : LOADING_FAILED;
  pthread_cond_broadcast(&writer->loading_ended);
  pthread_mutex_unlock(&writer->mutex);
  for (bool end = false; !end || writer->staging;) {
    struct write *first = write_queue_take(&writer->queue, MOST_WRITES, idle_ms, writer, &end);
    first = take_backups(writer, stage_large(writer, first));
    const bool busy = first != NULL;
    if (busy) writer->busy_until = clock_seconds() + BUSY_SECONDS;
    const bool expire = tips_soonest(writer->tips) <= clock_wall_ms() && is_rested(writer);
    if (busy || expire) run_writes(writer, first, expire);
    do_chores(writer, busy, end);
    note_failure(writer);
  }
  return NULL;
}

bool writer_submit(struct writer *writer, struct write *write) {
  return write_queue_add(&writer->queue, write);
}

static void wake(void *context) {
  struct writer *writer = context;
  write_queue_wake(&writer->queue);
}

struct arriving *writer_expect(struct writer *writer, const attn_snapshot *shape, size_t blocks) {
  return writer->arrivals ? arriving_create(writer->arrivals, shape, blocks) : NULL;
}

struct writer *writer_create(const struct writer_config *config) {
  struct writer *writer = calloc(1, sizeof *writer);
  if (!writer) return NULL;
  writer->config = *config;
  writer->last_fold = &writer->folds;
  writer->sweeper = (struct sweeper){.store = config->store, .garbage = true};
  if (config->huge_pages) writer->promoter.registry = config->registry;
  write_queue_init(&writer->queue);
  pthread_mutex_init(&writer->mutex, NULL);
  pthread_cond_init(&writer->loading_ended, NULL);
  writer->tips = tips_create();
  const struct arrivals_config arriving = {
      .store = config->store,
      .slice = config->arriving_slice > 0 ? config->arriving_slice : ARRIVING_SLICE,
      .wake = wake,
      .context = writer};
  if (config->store) writer->arrivals = arrivals_create(&arriving);
  writer->started = writer->tips && (writer->arrivals || !config->store) &&
                    pthread_create(&writer->thread, NULL, run, writer) == 0;
  if (writer->started) return writer;
  writer->config.store = NULL; /* remains the caller's */
  writer_free(writer);
  return NULL;
}

void writer_finish(struct writer *writer) {
  if (!writer || !writer->started) return;
  write_queue_end(&writer->queue);
  pthread_join(writer->thread, NULL);
  writer->started = false;
}

void writer_free(struct writer *writer) {
  if (!writer) return;
  writer_finish(writer);
  arrivals_free(writer->arrivals);
  tips_free(writer->tips);
  store_close(writer->config.store);
  write_queue_clear(&writer->queue);
  pthread_cond_destroy(&writer->loading_ended);
  pthread_mutex_destroy(&writer->mutex);
  free(writer);
}

bool writer_wait_loaded(struct writer *writer) {
  pthread_mutex_lock(&writer->mutex);
  while (writer->loading == LOADING)
    pthread_cond_wait(&writer->loading_ended, &writer->mutex);
  const bool loaded = writer->loading == LOADED;
  pthread_mutex_unlock(&writer->mutex);
  return loaded;
}

struct writer_progress writer_progress(const struct writer *writer) {
  return (struct writer_progress){.memories = atomic_load(&writer->loaded_memories),
                                  .of_memories = atomic_load(&writer->of_memories)};
}

const char *writer_failure(const struct writer *writer) {
  return writer->config.store ? store_failure(writer->config.store) : NULL;
}
