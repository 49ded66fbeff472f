/* Memories that the configuration names, from their files through the writer.
 *
 * Where there is a store, what was loaded at an earlier start is there already,
 * and may have been changed since: it is kept. */
#include <semaphore.h>
#include <stdio.h>

#include "api/building.h"
#include "base/clock.h"
#include "codec/config_file.h"

/* A write that somebody waits for. */
struct waiting {
  struct write write; /* first, so that one can be had from the other */
  sem_t done;
};

static void wake(struct write *write) {
  sem_post(&((struct waiting *)write)->done);
}

static bool put(struct api *api, struct waiting *waiting) {
  waiting->write.done = wake;
  if (sem_init(&waiting->done, 0, 0) != 0) return false;
  const bool submitted = writer_submit(api->writer, &waiting->write);
  while (submitted && sem_wait(&waiting->done) != 0) {
  }
  sem_destroy(&waiting->done);
  return submitted;
}

static void log_outcome(struct log *log, const struct preload *preload, const struct write *write,
                        double seconds) {
  if (write->existed)
    LOG(log, LOG_INFO, "memory_kept", log_text("memory", preload->name),
        log_text("reason", "the store has it already"));
  else
    LOG(log, LOG_INFO, "memory_loaded", log_text("memory", preload->name),
        log_text("file", preload->path),
        log_integer("rows", (int64_t)attn_snapshot_rows(write->memory->snapshot)),
        log_number("seconds", seconds));
}

static bool load(struct api *api, const struct preload *preload, struct log *log, char *error,
                 size_t error_size) {
  const double start = clock_seconds();
  struct memory *there = registry_pin(api->registry, preload->name);
  struct waiting waiting = {
      .write = {.kind = WRITE_PUT, .name = preload->name, .only_if_missing = true}};
  struct write *write = &waiting.write;
  if (there) {
    write->existed = true;
    log_outcome(log, preload, write, 0);
    memory_free(there);
    return true;
  }
  struct memory_body body;
  if (!preload_read(preload, &body, error, error_size)) return false;
  struct problem problem;
  struct memory *memory = building_make(api, preload->name, &body, &write->charge, &problem);
  memory_body_free(&body);
  if (!memory) {
    snprintf(error, error_size, "%s: %s", preload->path, problem.detail);
    return false;
  }
  write->memory = memory;
  const bool submitted = put(api, &waiting);
  if (submitted && !write->failed)
    log_outcome(log, preload, write, clock_seconds() - start);
  else
    snprintf(error, error_size, "%s: %s", preload->path,
             submitted ? write->problem.detail : "the server is stopping");
  memory_free(write->after);
  memory_free(memory);
  return submitted && !write->failed;
}

bool api_preload(struct api *api, const struct preload_list *list, struct log *log, char *error,
                 size_t error_size) {
  for (size_t i = 0; i < list->count; i++) {
    if (atomic_load(&api->stopping)) return true;
    if (!load(api, &list->items[i], log, error, error_size)) return false;
  }
  return true;
}
