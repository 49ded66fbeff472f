/* The route table: a request's way into the server starts here.
 *
 * A new route is a line, a handler in the file of its resource, and an entry in
 * api/openapi.c, which a test asks for. What bodies it takes and what forms of a reply it has
 * are sets of media types; a protocol whose errors look otherwise says so with `.errors`. */
#include "api/api.h"

static const struct http_media *const json[] = {&http_json, NULL};
static const struct http_media *const json_or_tensors[] = {&http_json, &http_tensors, NULL};

/* X(method, pattern, handler, place, operation, summary, what else the route
 *   has: designated members of struct http_route) */
#define ROUTE_LIST(X)                                                                              \
  X(GET, "/healthz", api_health, IO, "getHealth", "Whether the process is alive.",                 \
    .works_unready = true)                                                                         \
  X(GET, "/readyz", api_ready, IO, "getReadiness",                                                 \
    "Whether memories are loaded and queries can be served.", .works_unready = true)               \
  X(GET, "/metrics", api_metrics, IO, "getMetrics", "Metrics in Prometheus' text format.",         \
    .works_unready = true)                                                                         \
  X(GET, "/openapi.json", api_openapi, IO, "getOpenapi", "This document.", .works_unready = true)  \
  X(GET, "/v1/memories", api_list_memories, WORKER, "listMemories",                                \
    "All memories, sorted by name.", )                                                             \
  X(GET, "/v1/memories/{name}", api_get_memory, WORKER, "getMemory",                               \
    "What a memory is: shapes, defaults, version; or, as safetensors, all of it.",                 \
    .cost = api_get_memory_cost, .sends = json_or_tensors)                                         \
  X(PUT, "/v1/memories/{name}", api_put_memory, WORKER, "putMemory",                               \
    "Create a memory or replace it whole.", .completes = true, .takes = json_or_tensors,           \
    .upload = &api_put_memory_upload)                                                              \
  X(PATCH, "/v1/memories/{name}", api_patch_memory, WORKER, "patchMemory",                         \
    "Change a memory's score, normalization or time to live.", .completes = true, .takes = json)   \
  X(DELETE, "/v1/memories/{name}", api_delete_memory, WORKER, "deleteMemory", "Delete a memory.",  \
    .completes = true)                                                                             \
  X(GET, "/v1/memories/{name}/rows", api_list_rows, WORKER, "listRows", "A page of rows.", )       \
  X(POST, "/v1/memories/{name}/rows", api_post_rows, WORKER, "postRows",                           \
    "Append rows, or put them in the place of those with the same ids.", .completes = true,        \
    .takes = json_or_tensors)                                                                      \
  X(DELETE, "/v1/memories/{name}/rows", api_delete_rows, WORKER, "deleteRows",                     \
    "Delete rows by id.", .completes = true, .takes = json)                                        \
  X(POST, "/v1/memories/{name}/attend", api_attend_stored, WORKER, "attend",                       \
    "Attention of a batch of queries over a memory.", .cost = api_attend_stored_cost,              \
    .completes = true, .takes = json_or_tensors, .sends = json_or_tensors)                         \
  X(POST, "/v1/attend", api_attend_ad_hoc, WORKER, "attendAdHoc",                                  \
    "Attention over keys and values of the request, which are not kept.",                          \
    .cost = api_attend_ad_hoc_cost, .completes = true, .takes = json_or_tensors,                   \
    .sends = json_or_tensors)                                                                      \
  X(GET, "/v1/backup", api_backup, WORKER, "getBackup", "A consistent copy of the store.",         \
    .completes = true)

const struct http_route api_routes[] = {
#define ROUTE(method_, pattern_, handler_, place_, operation_, summary_, ...)                      \
  {.method = HTTP_##method_,                                                                       \
   .pattern = pattern_,                                                                            \
   .handler = handler_,                                                                            \
   .place = HTTP_ON_##place_,                                                                      \
   .operation = operation_,                                                                        \
   .summary = summary_,                                                                            \
   __VA_ARGS__},
    ROUTE_LIST(ROUTE)
#undef ROUTE
};
const size_t api_route_count = sizeof api_routes / sizeof *api_routes;

const char *const *api_operations(void) {
  static const char *const operations[] = {
#define OPERATION(method_, pattern_, handler_, place_, operation_, summary_, ...) operation_,
      ROUTE_LIST(OPERATION)
#undef OPERATION
  };
  return operations;
}
