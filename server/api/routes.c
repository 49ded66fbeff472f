/* The route table: a request's way into the server starts here.
 *
 * A new route is a line, a handler in the file of its resource, and an entry in
 * api/openapi.c, which a test asks for. */
#include "api/api.h"

/* X(method, pattern, handler, place, cost, takes a body, works unready,
 *   operation, summary)
 * The handlers that have a cost also complete their replies on their own. */
#define ROUTE_LIST(X)                                                                              \
  X(GET, "/healthz", api_health, IO, NULL, false, true, "getHealth",                               \
    "Whether the process is alive.")                                                               \
  X(GET, "/readyz", api_ready, IO, NULL, false, true, "getReadiness",                              \
    "Whether memories are loaded and queries can be served.")                                      \
  X(GET, "/metrics", api_metrics, IO, NULL, false, true, "getMetrics",                             \
    "Metrics in Prometheus' text format.")                                                         \
  X(GET, "/openapi.json", api_openapi, IO, NULL, false, true, "getOpenapi", "This document.")      \
  X(GET, "/v1/memories", api_list_memories, WORKER, NULL, false, false, "listMemories",            \
    "All memories, sorted by name.")                                                               \
  X(GET, "/v1/memories/{name}", api_get_memory, IO, NULL, false, false, "getMemory",               \
    "What a memory is: shapes, defaults, version.")                                                \
  X(PUT, "/v1/memories/{name}", api_put_memory, WORKER, NULL, true, false, "putMemory",            \
    "Create a memory or replace it whole.")                                                        \
  X(DELETE, "/v1/memories/{name}", api_delete_memory, WORKER, NULL, false, false, "deleteMemory",  \
    "Delete a memory.")                                                                            \
  X(POST, "/v1/memories/{name}/attend", api_attend_stored, WORKER, api_attend_stored_cost, true,   \
    false, "attend", "Attention of a batch of queries over a memory.")                             \
  X(POST, "/v1/attend", api_attend_ad_hoc, WORKER, api_attend_ad_hoc_cost, true, false,            \
    "attendAdHoc", "Attention over keys and values of the request, which are not kept.")

const struct http_route api_routes[] = {
#define ROUTE(method_, pattern_, handler_, place_, cost_, body_, unready_, operation_, summary_)   \
  {.method = HTTP_##method_,                                                                       \
   .pattern = pattern_,                                                                            \
   .handler = handler_,                                                                            \
   .place = HTTP_ON_##place_,                                                                      \
   .cost = cost_,                                                                                  \
   .takes_body = body_,                                                                            \
   .works_unready = unready_,                                                                      \
   .operation = operation_,                                                                        \
   .summary = summary_},
    ROUTE_LIST(ROUTE)
#undef ROUTE
};
const size_t api_route_count = sizeof api_routes / sizeof *api_routes;

const char *const *api_operations(void) {
  static const char *const operations[] = {
#define OPERATION(method_, pattern_, handler_, place_, cost_, body_, unready_, operation_,         \
                  summary_)                                                                        \
  operation_,
      ROUTE_LIST(OPERATION)
#undef OPERATION
  };
  return operations;
}
