/* For those who run the server: health, readiness, metrics. */
#include "api/api.h"

bool api_is_loaded(void *context) {
  const struct api *api = context;
  return atomic_load(&api->loaded);
}

static void reply_status(struct http_reply *reply, const char *status) {
  struct json_writer writer;
  json_begin(&writer, &reply->body);
  json_open_object(&writer);
  json_members(&writer, "{s:s}", "status", status);
  json_close_object(&writer);
  reply->content_type = "application/json";
}

void api_health(void *context, const struct http_request *request, struct http_reply *reply) {
  (void)context;
  (void)request;
  reply_status(reply, "alive");
}

void api_ready(void *context, const struct http_request *request, struct http_reply *reply) {
  (void)request;
  const struct api *api = context;
  const char *failure = writer_failure(api->writer);
  const struct writer_progress progress = writer_progress(api->writer);
  if (atomic_load(&api->stopping))
    api_problem(reply, PROBLEM_NOT_READY, "", "the server is stopping");
  else if (failure)
    api_problem(reply, PROBLEM_STORE_FAILED, "",
                "the store has failed (%s); queries go on, but nothing is written any more",
                failure);
  else if (api_is_loaded(context))
    reply_status(reply, "ready");
  else if (progress.memories < progress.of_memories)
    api_problem(reply, PROBLEM_NOT_READY, "", "%zu of %zu stored memories have been loaded",
                progress.memories, progress.of_memories);
  else
    api_problem(reply, PROBLEM_NOT_READY, "", "the memories of the configuration are being loaded");
}

/* ---- Metrics that mirror others' state ---- */

static int64_t sum_over_memories(struct api *api, size_t (*of)(const struct memory *memory)) {
  size_t count, sum = 0;
  struct memory **list = registry_list(api->registry, &count);
  if (!list) return 0;
  for (size_t i = 0; i < count; i++)
    sum += of(list[i]);
  registry_list_free(list, count);
  return (int64_t)sum;
}

static size_t one_of(const struct memory *memory) {
  (void)memory;
  return 1;
}

static size_t rows_of(const struct memory *memory) {
  return attn_snapshot_rows(memory->snapshot);
}

int64_t api_count_memories(struct api *api) {
  return sum_over_memories(api, one_of);
}

static int64_t read_memories(void *api) {
  return api_count_memories(api);
}
static int64_t read_rows(void *api) {
  return sum_over_memories(api, rows_of);
}
static int64_t read_bytes(void *api) {
  return sum_over_memories(api, memory_bytes);
}

static int64_t read_queue(void *context) {
  const struct api *api = context;
  return (int64_t)workers_queue_length(api->workers);
}

static int64_t read_store_failed(void *context) {
  const struct api *api = context;
  return writer_failure(api->writer) != NULL;
}

void api_observe(struct api *api) {
  metrics_set_reader(api->metrics, METRIC_STORE_FAILED, read_store_failed, api);
  metrics_set_reader(api->metrics, METRIC_MEMORIES, read_memories, api);
  metrics_set_reader(api->metrics, METRIC_MEMORY_ROWS, read_rows, api);
  metrics_set_reader(api->metrics, METRIC_MEMORY_BYTES, read_bytes, api);
  metrics_set_reader(api->metrics, METRIC_QUEUE_LENGTH, read_queue, api);
}

void api_metrics(void *context, const struct http_request *request, struct http_reply *reply) {
  (void)request;
  const struct api *api = context;
  metrics_write(api->metrics, &reply->body);
  reply->content_type = "text/plain; version=0.0.4; charset=utf-8";
  api_finish(api, reply);
}
