/* Memories as a resource: list, look at, export, create or replace, change,
 * delete. */
#include <math.h>
#include <stdio.h>

#include "api/building.h"
#include "api/changing.h"
#include "base/clock.h"

static const char *json_type = "application/json";

static void reply_meta(struct http_reply *reply, const struct memory *memory) {
  struct json_writer writer;
  json_begin(&writer, &reply->body);
  api_write_meta(&writer, memory);
  reply->content_type = json_type;
  api_set_etag(reply, memory->version);
}

void api_list_memories(void *context, const struct http_request *request,
                       struct http_reply *reply) {
  (void)request;
  const struct api *api = context;
  size_t count;
  struct memory **list = registry_list(api->registry, &count);
  if (!list) {
    api_problem(reply, PROBLEM_OUT_OF_MEMORY, "", "there is not enough memory for the list");
    return;
  }
  struct json_writer writer;
  json_begin(&writer, &reply->body);
  json_open_object(&writer);
  json_name(&writer, "memories");
  json_open_array(&writer);
  const int64_t time = clock_wall_ms();
  size_t written = 0;
  for (; written < count; written++) {
    struct memory *now = memory_at_time(list[written], time);
    if (!now) break;
    api_write_meta(&writer, now);
    memory_free(now);
  }
  json_close_array(&writer);
  json_close_object(&writer);
  reply->content_type = json_type;
  registry_list_free(list, count);
  if (written < count)
    api_problem(reply, PROBLEM_OUT_OF_MEMORY, "", "there is not enough memory for the list");
  else
    api_finish(api, reply);
}

void api_get_memory(void *context, const struct http_request *request, struct http_reply *reply) {
  const struct api *api = context;
  struct memory *memory = api_pin(api, request->name, reply);
  if (!memory) return;
  if (api_is_known(request, memory->version)) {
    reply->status = 304;
    api_set_etag(reply, memory->version);
  } else if (request->reply_media == &http_tensors) {
    api_export(memory, reply);
  } else {
    reply_meta(reply, memory);
    api_finish(api, reply);
  }
  memory_free(memory);
}

/* META is a matter of microseconds; the ids of an export may be a million. */
double api_get_memory_cost(void *context, const struct http_request *request) {
  (void)context;
  return request->reply_media == &http_tensors ? 1 : 0;
}

/* ---- Creating and replacing ---- */

/* What would be refused as things are need not be stored for nothing. */
static bool is_worth_storing(struct api *api, const struct http_request *request) {
  struct memory *memory = registry_pin(api->registry, request->name);
  const int64_t version = memory ? memory->version : 0;
  memory_free(memory);
  return api_preconditions_hold(request, version);
}

static bool begin_upload(void *context, const struct http_request *request, uint64_t length,
                         void **upload, struct problem *problem) {
  if (request->body_media != &http_tensors) return true;
  *upload = import_create(context, length, is_worth_storing(context, request));
  return *upload || problem_set_status(problem, ATTN_NO_MEMORY, "");
}

static bool feed_upload(void *upload, const char *bytes, size_t count, struct problem *problem) {
  return import_feed(upload, bytes, count, problem);
}

static void drop_upload(void *upload) {
  import_free(upload);
}

const struct http_upload api_put_memory_upload = {begin_upload, feed_upload, drop_upload};

static void answer_put(struct changing *changing) {
  struct http_reply *reply = changing->reply;
  if (changing->write.created) {
    reply->status = 201;
    snprintf(reply->location, sizeof reply->location, "/v1/memories/%s", changing->write.name);
  }
  reply_meta(reply, changing->write.after);
  api_finish(changing->api, reply);
}

static bool read_memory(struct api *api, const struct http_request *request, struct write *write,
                        struct problem *problem) {
  struct memory_body body;
  if (request->upload) {
    write->memory = import_finish(request->upload, request->name, &write->charge, problem);
    if (write->memory) write->arriving = import_arriving(request->upload);
    import_free(request->upload);
  } else if (body_parse_memory(request->body, request->body_length, &body, problem)) {
    write->memory = building_make(api, request->name, &body, &write->charge, problem);
    memory_body_free(&body);
  }
  return write->memory;
}

void api_put_memory(void *context, const struct http_request *request, struct http_reply *reply) {
  struct api *api = context;
  struct changing *changing = changing_create(api, request, reply, WRITE_PUT, answer_put);
  if (!changing) {
    import_free(request->upload);
    return;
  }
  struct problem problem;
  struct write *write = &changing->write;
  if (read_memory(api, request, write, &problem)) {
    changing_submit(changing);
  } else {
    write->charge = 0;
    changing_refuse(changing, &problem);
  }
}

/* ---- Changing and deleting ---- */

static void answer_settings(struct changing *changing) {
  reply_meta(changing->reply, changing->write.after);
  api_finish(changing->api, changing->reply);
}

void api_patch_memory(void *context, const struct http_request *request, struct http_reply *reply) {
  struct problem problem;
  struct changing *changing =
      changing_create(context, request, reply, WRITE_SETTINGS, answer_settings);
  if (!changing) return;
  struct settings_body *body = &changing->settings;
  if (!body_parse_settings(request->body, request->body_length, body, &problem)) {
    changing_refuse(changing, &problem);
    return;
  }
  changing->write.score = body->score;
  changing->write.normalization = body->normalization;
  changing->write.has_ttl = body->has_ttl;
  changing->write.ttl_ms = building_ttl_ms(body->ttl_seconds);
  changing_submit(changing);
}

static void answer_deletion(struct changing *changing) {
  changing->reply->status = 204;
}

void api_delete_memory(void *context, const struct http_request *request,
                       struct http_reply *reply) {
  struct changing *changing =
      changing_create(context, request, reply, WRITE_DELETE, answer_deletion);
  if (changing) changing_submit(changing);
}
