/* Memories that the configuration names, from their files into the registry. */
#include <stdio.h>

#include "api/api.h"
#include "base/clock.h"
#include "codec/config_file.h"

static bool load(struct api *api, const struct preload *preload, struct log *log, char *error,
                 size_t error_size) {
  const double start = clock_seconds();
  struct memory_body body;
  if (!preload_read(preload, &body, error, error_size)) return false;
  struct problem problem;
  struct memory *memory = api_build_memory(preload->name, &body, &problem);
  memory_body_free(&body);
  if (!memory) {
    snprintf(error, error_size, "%s: %s", preload->path, problem.detail);
    return false;
  }
  memory_ref(memory);
  const enum registry_result result = registry_put(api->registry, memory, NULL);
  const bool published = result == REGISTRY_CREATED || result == REGISTRY_REPLACED;
  if (published) {
    LOG(log, LOG_INFO, "memory_loaded", log_text("memory", preload->name),
        log_text("file", preload->path),
        log_integer("rows", (int64_t)attn_snapshot_rows(memory->snapshot)),
        log_number("seconds", clock_seconds() - start));
  } else {
    snprintf(error, error_size, "%s: there is not enough memory for it", preload->path);
    memory_free(memory);
  }
  memory_free(memory);
  return published;
}

bool api_preload(struct api *api, const struct preload_list *list, struct log *log, char *error,
                 size_t error_size) {
  for (size_t i = 0; i < list->count; i++) {
    if (atomic_load(&api->stopping)) return true;
    if (!load(api, &list->items[i], log, error, error_size)) return false;
  }
  return true;
}
