/* The resources behind the routes. */
#ifndef API_API_H
#define API_API_H

#include <stdatomic.h>

#include "codec/write.h"
#include "engine/attend.h"
#include "engine/registry.h"
#include "engine/workers.h"
#include "engine/writer.h"
#include "http/http.h"

/* What every handler gets. The parts are made and freed by main(), who says
 * when the server became ready and when it has to hurry. */
struct api {
  struct registry *registry;
  struct writer *writer;
  struct budget budget; /* of the RAM of all memories */
  struct workers *workers;
  struct attend_service attend;
  struct metrics *metrics;
  size_t max_body_bytes, max_reply_bytes;
  size_t max_rows, max_dim; /* of a memory */
  const char *data_dir;     /* "": nothing is kept */
  atomic_ulong backups;     /* begun so far, to name their files */
  atomic_bool loaded;       /* the store's and the configuration's memories are */
  atomic_bool stopping;     /* SIGTERM came */
  atomic_bool hurry;        /* the time to stop is over: give up what still computes */
};

/* The one route table; OpenAPI and the metrics' labels come from it as well. */
extern const struct http_route api_routes[];
extern const size_t api_route_count;

/* The routes' operation names, in the order of the table; static. */
const char *const *api_operations(void);

/* True where ordinary routes may serve: the memories are loaded. They go on
 * serving during a stop, because a request that was on its way when SIGTERM came
 * is to be answered; it is /readyz that tells a load balancer to stay away. */
bool api_is_loaded(void *api);

http_handler api_list_memories, api_get_memory, api_put_memory, api_patch_memory, api_delete_memory;
http_handler api_list_rows, api_post_rows, api_delete_rows;
http_handler api_backup;
extern const struct http_upload api_put_memory_upload;
http_handler api_attend_stored, api_attend_ad_hoc;
void api_answer_put_off(void *api, void **put_off); /* what api_attend_...() did */
http_cost api_get_memory_cost, api_attend_stored_cost, api_attend_ad_hoc_cost;
http_handler api_health, api_ready, api_metrics, api_openapi;

/* Loads the memories of the option `memories` and publishes them, in order.
 * False with a sentence in `error`; those before the faulty one are kept. */
struct preload_list;
bool api_preload(struct api *api, const struct preload_list *list, struct log *log, char *error,
                 size_t error_size);

int64_t api_count_memories(struct api *api);

/* Lets /metrics read the registry and the queue. Before threads start. */
void api_observe(struct api *api);

/* ---- Shared by the resources ---- */

/* Makes the reply that problem, with a formatted detail. */
void api_problem(struct http_reply *reply, enum problem_code code, const char *pointer,
                 const char *format, ...) __attribute__((format(printf, 4, 5)));

/* To be called last: a reply that was cut off or could not be allocated
 * becomes the problem that says so. */
void api_finish(const struct api *api, struct http_reply *reply);

/* registry_find(), with the problem made the reply. */
struct memory *api_pin(const struct api *api, const char *name, struct http_reply *reply);

/* Makes the reply the memory's export: safetensors, as a stream. */
void api_export(struct memory *memory, struct http_reply *reply);

/* META, what the API says of a memory: {"name","version","rows",...}. */
void api_write_meta(struct json_writer *writer, const struct memory *memory);

/* {"type":...} with the numbers in force; tensors by their shape, or left out. */
void api_write_score(struct json_writer *writer, const struct memory *memory, bool shapes);
void api_write_normalization(struct json_writer *writer, const struct memory *memory);

/* Sets ETag to the version. */
void api_set_etag(struct http_reply *reply, int64_t version);

/* Whether If-Match and If-None-Match (RFC 9110, 13.1) allow a change of that
 * version, 0 where there is none; the context is the struct http_request. */
bool api_preconditions_hold(const void *request, int64_t version);

/* True where If-None-Match names this version: the client has it already. */
bool api_is_known(const struct http_request *request, int64_t version);

#endif
