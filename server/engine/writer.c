/* The writer's thread.
 *
 * Writes are submitted to a queue. The thread takes what is there, all of it,
 * applies write after write to the memories' tips and puts the records into one
 * transaction: that is the group commit, and it needs no delay, because while
 * one transaction becomes durable the next batch gathers by itself. Then, in
 * this order: commit, publish the new versions, tell the askers. So nobody ever
 * sees what a crash could take back.
 *
 * What would hold others up is done in slices, one between two batches:
 *   - a large new memory is stored ahead of its base, SLICE bytes at a time
 *     under an id of its own, and its write joins a batch when all is there;
 *   - a fold (the changes of a memory have become many; what they lead to is
 *     stored as chunks, with a new base) does the same with the version it began
 *     with, while the memory goes on changing;
 *   - what folds, deletes and replacements leave behind is swept away.
 *
 * A disk that is full fails the batch. Where that had more than one write they
 * are tried again one by one, since a small one may still fit. An I/O error
 * fails everything from then on (store.h): readers go on.
 *
 * Rows that expire are removed by a change of their own, when their time comes;
 * readers don't wait for that (memory_at_time()).
 *
 * Rejected: a lock per memory and writers on the requests' threads. They would
 * meet at the disk all the same, every order of locks would have to be thought
 * through, and the group commit would need a wait.
 *
 * Owners: the queue, `ending`, `loading` and their conditions by `mutex`. The two
 * counts of loading are atomic.
 * All else, the tips, the store, the staging and the registry's contents, is the
 * thread's alone. */
#include "engine/writer.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/load.h"

/* Bytes per slice, of what a small memory may have to be stored within a batch,
 * and of writes per batch. */
enum { SLICE = 64 << 20, SMALL_MEMORY = 4 << 20, MOST_WRITES = 1024 };

/* A fold writes the blocks that changed: it is due once the changes are a good
 * part of those, or so many that a restart would take long. */
enum { FOLD_LEAST = 1 << 20, FOLD_MOST = 64 << 20, FOLD_PART = 4 };

/* Milliseconds between attempts where RAM is short. */
enum { RETRY_MS = 20 };

/* A memory that is being stored in slices: a new one's, or a fold's. */
struct staging {
  struct write *write; /* NULL: a fold */
  struct tip *tip;     /* of a fold; NULL once the memory is another one */
  struct memory *memory;
  struct staged staged;
  size_t change_bytes;  /* of a fold: what it makes superfluous */
  int64_t base_version; /* of a fold: of the base that there was when it began */
  bool complete;
  struct staging *following;
};

struct writer {
  struct writer_config config;
  pthread_t thread;
  pthread_mutex_t mutex;
  pthread_cond_t submitted;
  struct write *first, **last; /* the queue */
  bool ending;
  bool started;
  pthread_cond_t loading_ended;
  enum { LOADING, LOADED, LOADING_FAILED } loading;
  atomic_size_t loaded_memories, of_memories;

  /* the thread's */
  struct tip *tips;
  size_t memory_count;
  int64_t floor; /* the largest version of a deleted memory */
  struct staging *staging;
  bool garbage;
};

/* ---- Tips ---- */

static struct tip *find_tip(struct writer *writer, const char *name) {
  struct tip *tip = writer->tips;
  while (tip && strcmp(tip->name, name) != 0)
    tip = tip->following;
  return tip;
}

static struct tip *tip_for(struct writer *writer, const char *name) {
  struct tip *tip = find_tip(writer, name);
  if (tip) return tip;
  tip = tip_create(name);
  if (!tip) return NULL;
  tip->following = writer->tips;
  writer->tips = tip;
  return tip;
}

/* Those of memories that are gone. */
static void drop_empty_tips(struct writer *writer) {
  for (struct tip **at = &writer->tips; *at;) {
    struct tip *tip = *at;
    if (tip->published.memory || tip->touched) {
      at = &tip->following;
      continue;
    }
    for (struct staging *s = writer->staging; s; s = s->following)
      if (s->tip == tip) s->tip = NULL;
    *at = tip->following;
    tip_free(tip);
  }
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

static void fail_for_store(struct writer *writer, struct write *write, enum store_status status) {
  if (write->failed) return;
  memory_free(write->after);
  write->after = NULL;
  write->failed = true;
  if (status == STORE_FULL)
    problem_set(&write->problem, PROBLEM_STORAGE_FULL, "",
                "the disk of the data folder is full; nothing was changed, and queries go on");
  else if (status == STORE_NO_MEMORY)
    problem_set(&write->problem, PROBLEM_OUT_OF_MEMORY, "",
                "there is not enough memory for this change; nothing was changed");
  else
    problem_set(&write->problem, PROBLEM_STORE_FAILED, "",
                "the store has failed (%s); queries go on, but nothing is written any more",
                store_failure(writer->config.store) ? store_failure(writer->config.store)
                                                    : "it is damaged");
}

static void apply_put(struct writer *writer, struct write *write, const struct staged *staged,
                      struct tip_context *context) {
  struct tip *tip = tip_for(writer, write->name);
  if (!tip) {
    context->status = STORE_NO_MEMORY;
    return;
  }
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
  struct staged fresh = {.place = {.store = writer->config.store, .next_chunk = 1}};
  if (!staged) {
    if (context->store) fresh.place.id = store_new_id(context->store);
    staged = &fresh;
  }
  const int64_t version = (exists ? tip->now.version : writer->floor) + 1;
  tip_put(tip, write, version, staged, context);
  writer->memory_count += !exists;
}

static void apply_delete(struct writer *writer, struct write *write, struct tip_context *context) {
  struct tip *tip = find_tip(writer, write->name);
  if (!tip || !tip->now.memory) {
    write->failed = true;
    problem_set(&write->problem, PROBLEM_MEMORY_NOT_FOUND, "", "there is no memory named \"%s\"",
                write->name);
    return;
  }
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
  if (write->kind == WRITE_DELETE) {
    apply_delete(writer, write, context);
    return;
  }
  struct tip *tip = tip_for(writer, write->name);
  if (!tip)
    context->status = STORE_NO_MEMORY;
  else if (write->kind == WRITE_ROWS)
    tip_rows(tip, write, context);
  else if (write->kind == WRITE_REMOVAL)
    tip_remove(tip, write, context);
  else
    tip_settle(tip, write, context);
}

static void expire(struct writer *writer, struct tip_context *context) {
  for (struct tip *tip = writer->tips; tip && context->status == STORE_OK; tip = tip->following)
    if (tip->now.memory && tip->now.memory->soonest <= context->wall_ms) tip_expire(tip, context);
}

/* The batch is durable, or has not happened. */
static void settle_tips(struct writer *writer, bool durable) {
  writer->memory_count = 0;
  for (struct tip *tip = writer->tips; tip; tip = tip->following) {
    if (tip->touched && durable) {
      publish(writer, tip);
      tip_commit(tip, writer->config.budget);
    } else if (tip->touched || tip->reserved > 0) {
      tip_forget(tip, writer->config.budget);
    }
    writer->memory_count += tip->published.memory != NULL;
  }
  drop_empty_tips(writer);
}

/* A write that comes with what was staged for it is the only one of its batch. */
struct batch {
  struct write *first;
  const struct staged *staged;
  bool expire;
};

static enum store_status run_batch(struct writer *writer, const struct batch *batch) {
  struct store *store = writer->config.store;
  struct tip_context context = {.store = store,
                                .budget = writer->config.budget,
                                .max_rows = writer->config.max_rows,
                                .wall_ms = clock_wall_ms(),
                                .status = store ? store_begin(store) : STORE_OK};
  const int64_t floor = writer->floor;
  if (batch->expire && context.status == STORE_OK) expire(writer, &context);
  for (struct write *write = batch->first; write && context.status == STORE_OK;
       write = write->following)
    apply(writer, write, batch->staged, &context);
  for (struct tip *tip = writer->tips; tip && context.status == STORE_OK; tip = tip->following)
    if (tip->gathered.rows > 0 && !tip_gather_in(tip)) context.status = STORE_NO_MEMORY;
  if (store && context.status == STORE_OK)
    context.status = store_commit(store);
  else if (store)
    store_rollback(store);
  if (context.status != STORE_OK) writer->floor = floor;
  settle_tips(writer, context.status == STORE_OK);
  return context.status;
}

static void finish(struct writer *writer, struct write *write) {
  budget_give(writer->config.budget, write->charge);
  write->charge = 0;
  write->done(write);
}

static void finish_all(struct writer *writer, struct write *write) {
  while (write) {
    struct write *following = write->following;
    finish(writer, write);
    write = following;
  }
}

/* As before it was applied. */
static void reset(struct write *write) {
  memory_free(write->after);
  write->after = NULL;
  write->failed = write->created = write->existed = false;
  write->inserted = write->updated = write->deleted = 0;
}

static void run_writes(struct writer *writer, struct write *first) {
  const struct batch batch = {.first = first};
  enum store_status status = run_batch(writer, &batch);
  if (status == STORE_FULL && first->following) {
    while (first) {
      struct write *following = first->following;
      first->following = NULL;
      reset(first);
      run_writes(writer, first);
      first = following;
    }
    return;
  }
  for (struct write *write = first; write && status != STORE_OK; write = write->following)
    fail_for_store(writer, write, status);
  finish_all(writer, first);
}

static void run_expiry(struct writer *writer) {
  const struct batch batch = {.expire = true};
  run_batch(writer, &batch);
}

/* ---- Staging ---- */

static void staging_free(struct staging *staging) {
  kept_free(staging->staged.kept);
  memory_free(staging->memory);
  free(staging);
}

static bool stage_write(struct writer *writer, struct write *write) {
  struct staging *staging = calloc(1, sizeof *staging);
  struct kept *kept = staging ? kept_create(write->memory) : NULL;
  if (!kept) {
    free(staging);
    return false;
  }
  *staging = (struct staging){.write = write,
                              .memory = memory_ref(write->memory),
                              .staged = {.place = {.store = writer->config.store,
                                                   .id = store_new_id(writer->config.store),
                                                   .next_chunk = 1},
                                         .kept = kept}};
  struct staging **last = &writer->staging;
  while (*last)
    last = &(*last)->following;
  *last = staging;
  return true;
}

static size_t encoded_bytes(const struct memory *memory) {
  size_t bytes = 0;
  for (size_t i = 0; i < attn_snapshot_block_count(memory->snapshot); i++)
    bytes += attn_block_encoded_size(memory->snapshot, attn_snapshot_block(memory->snapshot, i));
  return bytes;
}

/* Takes large new memories out of the queue. */
static struct write *stage_large(struct writer *writer, struct write *first) {
  for (struct write **at = &first; writer->config.store && *at;) {
    struct write *write = *at, *following = write->following;
    if (write->kind == WRITE_PUT && encoded_bytes(write->memory) > SMALL_MEMORY &&
        stage_write(writer, write)) {
      write->following = NULL;
      *at = following;
    } else {
      at = &write->following;
    }
  }
  return first;
}

static bool is_fold_due(const struct tip *tip) {
  const struct tip_state *state = &tip->published;
  if (!state->memory || state->memory->damaged || state->change_bytes < FOLD_LEAST) return false;
  if (state->change_bytes >= FOLD_MOST || !state->kept) return true;
  return state->change_bytes >= kept_missing_bytes(state->kept, state->memory) / FOLD_PART;
}

/* One fold at a time is enough. */
static void begin_fold(struct writer *writer) {
  struct tip *tip = writer->tips;
  while (tip && !is_fold_due(tip))
    tip = tip->following;
  if (!tip) return;
  struct staging *staging = calloc(1, sizeof *staging);
  struct tip_state *state = &tip->published;
  struct kept *kept = !staging      ? NULL
                      : state->kept ? kept_follow(state->kept, state->memory)
                                    : kept_create(state->memory);
  if (!kept) {
    free(staging);
    return;
  }
  *staging = (struct staging){.tip = tip,
                              .memory = memory_ref(state->memory),
                              .staged = {.place = state->place, .kept = kept},
                              .change_bytes = state->change_bytes,
                              .base_version = state->base_version};
  writer->staging = staging;
}

/* The memory has been replaced or given a new base meanwhile: the fold is of no
 * use. */
static bool is_stale(const struct staging *staging) {
  return !staging->write &&
         (!staging->tip || staging->tip->published.place.id != staging->staged.place.id ||
          staging->tip->published.base_version != staging->base_version);
}

static enum store_status store_slice(struct staging *staging) {
  struct kept_place *place = &staging->staged.place;
  /* The memory's own changes may take numbers as well. */
  if (staging->tip) place->next_chunk = staging->tip->published.place.next_chunk;
  enum store_status status = store_begin(place->store);
  if (status == STORE_OK)
    status = kept_store(staging->staged.kept, place, staging->memory, SLICE, &staging->complete);
  if (status == STORE_OK)
    status = store_commit(place->store);
  else
    store_rollback(place->store);
  if (status == STORE_OK)
    kept_settle(staging->staged.kept);
  else
    kept_forget(staging->staged.kept);
  if (staging->tip) staging->tip->published.place.next_chunk = place->next_chunk;
  if (staging->tip) staging->tip->now.place.next_chunk = place->next_chunk;
  return status;
}

static enum store_status finish_fold(struct staging *staging) {
  struct tip *tip = staging->tip;
  struct store *store = staging->staged.place.store;
  enum store_status status = store_begin(store);
  if (status == STORE_OK)
    status = kept_put_base(staging->staged.kept, &staging->staged.place, staging->memory,
                           &tip->receipts);
  if (status == STORE_OK)
    status = store_commit(store);
  else
    store_rollback(store);
  if (status == STORE_OK)
    tip_folded(tip, staging->staged.kept, staging->memory->version, staging->change_bytes);
  return status;
}

/* One slice of the staging at the front. */
static void stage_on(struct writer *writer) {
  struct staging *staging = writer->staging;
  enum store_status status = STORE_OK;
  const bool stale = is_stale(staging);
  if (!stale) status = store_slice(staging);
  if (!stale && status == STORE_OK && !staging->complete) return;
  writer->staging = staging->following;
  writer->garbage = true;
  if (staging->write) {
    staging->write->following = NULL;
    const struct batch batch = {.first = staging->write, .staged = &staging->staged};
    if (status == STORE_OK) status = run_batch(writer, &batch);
    if (status != STORE_OK) fail_for_store(writer, staging->write, status);
    finish(writer, staging->write);
  } else if (!stale && status == STORE_OK) {
    status = finish_fold(staging);
    if (status != STORE_OK)
      LOG(writer->config.log, LOG_WARNING, "fold_failed", log_text("memory", staging->memory->name),
          log_text("reason", status == STORE_FULL ? "the disk is full" : "the store has failed"));
  }
  staging_free(staging);
}

static void sweep(struct writer *writer) {
  bool more = false;
  const enum store_status status = store_sweep(writer->config.store, SLICE, &more);
  writer->garbage = status == STORE_OK && more;
}

/* ---- Backups ---- */

static void back_up(struct writer *writer, struct write *write) {
  if (!writer->config.store) {
    write->failed = true;
    problem_set(&write->problem, PROBLEM_NO_STORE, "",
                "this server keeps everything in RAM only (data_dir is empty)");
  } else {
    const enum store_status status = store_backup(writer->config.store, write->path);
    if (status != STORE_OK) fail_for_store(writer, write, status);
  }
  finish(writer, write);
}

static struct write *take_backups(struct writer *writer, struct write *first) {
  for (struct write **at = &first; *at;) {
    struct write *write = *at;
    if (write->kind != WRITE_BACKUP) {
      at = &write->following;
      continue;
    }
    *at = write->following;
    write->following = NULL;
    back_up(writer, write);
  }
  return first;
}

/* ---- The thread ---- */

static bool is_ending(struct writer *writer) {
  pthread_mutex_lock(&writer->mutex);
  const bool ending = writer->ending;
  pthread_mutex_unlock(&writer->mutex);
  return ending;
}

static bool load(struct writer *writer) {
  struct store *store = writer->config.store;
  struct store_memory stored;
  size_t count = 0;
  const double began = clock_seconds();
  if (!store) return true;
  while (store_memory_at(store, count, &stored))
    count++;
  atomic_store(&writer->of_memories, count);
  for (size_t i = 0; i < count && store_memory_at(store, i, &stored); i++) {
    if (is_ending(writer)) return false;
    struct tip *tip = tip_for(writer, stored.name);
    if (!tip || !load_tip(tip, store, &stored, writer->config.budget)) return false;
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
  writer->floor = store_version_floor(store);
  const double seconds = clock_seconds() - began;
  const double bytes = (double)atomic_load(&writer->config.budget->used);
  LOG(writer->config.log, LOG_INFO, "store_loaded", log_text("folder", store_directory(store)),
      log_integer("memories", (int64_t)count), log_number("megabytes", bytes / 1e6),
      log_number("seconds", seconds),
      log_number("megabytes_per_second", seconds > 0 ? bytes / 1e6 / seconds : 0));
  return true;
}

static int64_t soonest(const struct writer *writer) {
  int64_t soonest = NEVER_EXPIRES;
  for (const struct tip *tip = writer->tips; tip; tip = tip->following)
    if (tip->published.memory && tip->published.memory->soonest < soonest)
      soonest = tip->published.memory->soonest;
  return soonest;
}

static bool is_store_usable(const struct writer *writer) {
  return writer->config.store && !store_failure(writer->config.store);
}

/* What there is to do without a write. */
static bool has_chores(const struct writer *writer) {
  return writer->staging || (writer->garbage && is_store_usable(writer));
}

/* The writes that wait; waits for one where there is nothing else to do. */
static struct write *take(struct writer *writer, bool *end) {
  pthread_mutex_lock(&writer->mutex);
  while (!writer->first && !writer->ending && !has_chores(writer)) {
    const int64_t until = soonest(writer), now = clock_wall_ms();
    if (until <= now) break;
    /* The wall clock may be set: so never longer than a second. */
    const int64_t ms = until - now < 1000 ? until - now : 1000;
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    time.tv_sec += (time.tv_nsec + ms * 1000000) / 1000000000;
    time.tv_nsec = (time.tv_nsec + ms * 1000000) % 1000000000;
    if (until == NEVER_EXPIRES)
      pthread_cond_wait(&writer->submitted, &writer->mutex);
    else
      pthread_cond_timedwait(&writer->submitted, &writer->mutex, &time);
  }
  struct write *first = writer->first, **at = &first;
  for (size_t count = 0; *at && count < MOST_WRITES; count++)
    at = &(*at)->following;
  writer->first = *at;
  *at = NULL;
  if (!writer->first) writer->last = &writer->first;
  *end = writer->ending && !first;
  pthread_mutex_unlock(&writer->mutex);
  return first;
}

static void *run(void *context) {
  struct writer *writer = context;
  const bool loaded = load(writer);
  pthread_mutex_lock(&writer->mutex);
  writer->loading = loaded ? LOADED : LOADING_FAILED;
  pthread_cond_broadcast(&writer->loading_ended);
  pthread_mutex_unlock(&writer->mutex);
  for (bool end = false; !end || writer->staging;) {
    struct write *first = take(writer, &end);
    first = take_backups(writer, stage_large(writer, first));
    if (soonest(writer) <= clock_wall_ms()) run_expiry(writer);
    if (first) run_writes(writer, first);
    if (!writer->staging && !end && is_store_usable(writer)) begin_fold(writer);
    if (writer->staging)
      stage_on(writer);
    else if (!end && !first && writer->garbage && is_store_usable(writer))
      sweep(writer);
  }
  return NULL;
}

bool writer_submit(struct writer *writer, struct write *write) {
  pthread_mutex_lock(&writer->mutex);
  const bool taken = !writer->ending;
  if (taken) {
    write->following = NULL;
    *writer->last = write;
    writer->last = &write->following;
    pthread_cond_signal(&writer->submitted);
  }
  pthread_mutex_unlock(&writer->mutex);
  return taken;
}

struct writer *writer_create(const struct writer_config *config) {
  struct writer *writer = calloc(1, sizeof *writer);
  pthread_condattr_t attributes;
  if (!writer) return NULL;
  writer->config = *config;
  writer->last = &writer->first;
  writer->garbage = config->store != NULL;
  pthread_mutex_init(&writer->mutex, NULL);
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&writer->submitted, &attributes);
  pthread_condattr_destroy(&attributes);
  pthread_cond_init(&writer->loading_ended, NULL);
  writer->started = pthread_create(&writer->thread, NULL, run, writer) == 0;
  if (writer->started) return writer;
  writer_free(writer);
  return NULL;
}

void writer_finish(struct writer *writer) {
  if (!writer || !writer->started) return;
  pthread_mutex_lock(&writer->mutex);
  writer->ending = true;
  pthread_cond_signal(&writer->submitted);
  pthread_mutex_unlock(&writer->mutex);
  pthread_join(writer->thread, NULL);
  writer->started = false;
}

void writer_free(struct writer *writer) {
  if (!writer) return;
  writer_finish(writer);
  while (writer->tips) {
    struct tip *tip = writer->tips;
    writer->tips = tip->following;
    tip_free(tip);
  }
  store_close(writer->config.store);
  pthread_cond_destroy(&writer->submitted);
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
