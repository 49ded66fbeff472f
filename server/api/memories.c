/* Memories as a resource: list, look at, create or replace, delete. */
#include <stdio.h>

#include "api/api.h"
#include "codec/body.h"

static const char *json_type = "application/json";

static void reply_absent(struct http_reply *reply, const char *name) {
  api_problem(reply, PROBLEM_MEMORY_NOT_FOUND, "", "there is no memory named \"%s\"", name);
}

static void reply_refused(struct http_reply *reply, const struct http_request *request) {
  const char *header = *request->if_match ? "If-Match" : "If-None-Match";
  const char *wanted = *request->if_match ? request->if_match : request->if_none_match;
  api_problem(reply, PROBLEM_PRECONDITION_FAILED, "",
              "the memory is not as %s: %s asks; nothing was changed", header, wanted);
}

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
  for (size_t i = 0; i < count; i++)
    api_write_meta(&writer, list[i]);
  json_close_array(&writer);
  json_close_object(&writer);
  reply->content_type = json_type;
  registry_list_free(list, count);
  api_finish(api, reply);
}

void api_get_memory(void *context, const struct http_request *request, struct http_reply *reply) {
  const struct api *api = context;
  struct memory *memory = registry_pin(api->registry, request->name);
  if (!memory) {
    reply_absent(reply, request->name);
    return;
  }
  if (api_is_known(request, memory->version)) {
    reply->status = 304;
    api_set_etag(reply, memory->version);
  } else {
    reply_meta(reply, memory);
    api_finish(api, reply);
  }
  memory_free(memory);
}

/* From the parsed body to an unpublished memory. */
struct memory *api_build_memory(const char *name, const struct memory_body *body,
                                struct problem *problem) {
  attn_snapshot *empty = NULL, *filled = NULL;
  struct memory *memory = NULL;
  attn_status status =
      attn_snapshot_create_typed(&empty, body->key_dim, body->value_dim, body->dtype);
  if (status == ATTN_OK)
    status =
        attn_snapshot_append(&filled, empty, body->keys.data, body->values.data, body->keys.rows);
  if (status == ATTN_OK) {
    memory = memory_create(name, filled, body->ids, body->score, body->normalization);
    if (!memory) status = ATTN_NO_MEMORY;
  }
  if (status != ATTN_OK) problem_set_status(problem, status, "");
  attn_snapshot_free(empty);
  attn_snapshot_free(filled);
  return memory;
}

void api_put_memory(void *context, const struct http_request *request, struct http_reply *reply) {
  struct api *api = context;
  struct problem problem;
  struct memory_body body;
  if (!body_parse_memory(request->body, request->body_length, &body, &problem)) {
    http_reply_problem(reply, &problem);
    return;
  }
  struct memory *memory = api_build_memory(request->name, &body, &problem);
  memory_body_free(&body);
  if (!memory) {
    http_reply_problem(reply, &problem);
    return;
  }
  /* Held for the reply: once published, the registry may drop its own. */
  memory_ref(memory);
  const struct registry_condition condition = {api_preconditions_hold, request};
  const enum registry_result result = registry_put(api->registry, memory, &condition);
  switch (result) {
  case REGISTRY_CREATED:
    reply->status = 201;
    snprintf(reply->location, sizeof reply->location, "/v1/memories/%s", request->name);
    /* fall through */
  case REGISTRY_REPLACED:
    reply_meta(reply, memory);
    api_finish(api, reply);
    break;
  case REGISTRY_REFUSED:
    reply_refused(reply, request);
    memory_free(memory);
    break;
  default:
    api_problem(reply, PROBLEM_OUT_OF_MEMORY, "", "there is not enough memory to publish it");
    memory_free(memory);
    break;
  }
  memory_free(memory);
}

void api_delete_memory(void *context, const struct http_request *request,
                       struct http_reply *reply) {
  struct api *api = context;
  const struct registry_condition condition = {api_preconditions_hold, request};
  switch (registry_delete(api->registry, request->name, &condition)) {
  case REGISTRY_DELETED:
    reply->status = 204;
    break;
  case REGISTRY_ABSENT:
    reply_absent(reply, request->name);
    break;
  case REGISTRY_REFUSED:
    reply_refused(reply, request);
    break;
  default:
    api_problem(reply, PROBLEM_OUT_OF_MEMORY, "", "there is not enough memory to delete it");
    break;
  }
}
