/* Attend over HTTP: JSON and safetensors in and out. What lies between is engine/attend.c.
 *
 * An exchange is one request on its way: made by the handler, which decodes the body into it,
 * and freed when its reply was written, on whichever thread computed the answer. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "codec/safetensors.h"
#include "codec/tensor_body.h"

struct attend_exchange {
  struct attend_request request; /* first, so that one can be had from the other */
  const struct api *api;
  const struct http_request *http;
  struct http_reply *reply;
  struct attend_body body;
};

/* A digit and a comma; {"row":0,"weight":0.5} */
static const struct attend_encoding encoding = {.number = 2, .largest = 22};

static void complete(struct attend_exchange *exchange) {
  struct http_reply *reply = exchange->reply;
  attend_request_clear(&exchange->request);
  attend_body_free(&exchange->body);
  free(exchange);
  http_complete(reply);
}

/* ---- Writing ---- */

static void write_largest(struct json_writer *writer, const struct attend_exchange *exchange) {
  const attn_result *result = attend_result(&exchange->request);
  const struct row_tags *tags = exchange->request.memory ? exchange->request.memory->tags : NULL;
  json_open_array(writer);
  for (size_t q = 0; q < result->query_count; q++) {
    json_open_array(writer);
    for (size_t i = 0; i < result->largest_count[q]; i++) {
      const attn_weight *weight = &result->largest[q * result->top + i];
      json_open_object(writer);
      json_name(writer, "row");
      json_int64(writer, (int64_t)weight->row);
      size_t length;
      const char *id = row_tags_id(tags, weight->row, &length);
      if (id) {
        json_name(writer, "id");
        json_chars(writer, id, length);
      }
      json_name(writer, "weight");
      json_float(writer, weight->weight);
      json_close_object(writer);
    }
    json_close_array(writer);
  }
  json_close_array(writer);
}

static void write_memory(struct json_writer *writer, const struct attend_exchange *exchange) {
  if (!exchange->request.memory) return;
  json_name(writer, "memory");
  json_text(writer, exchange->request.memory->name);
  json_name(writer, "version");
  json_int64(writer, exchange->request.memory->version);
}

/* Outputs and full weights as tensors; what is no matrix goes into the note. */
static void write_tensors(const struct attend_exchange *exchange, struct http_reply *reply) {
  const attn_result *result = attend_result(&exchange->request);
  const size_t count = result->query_count, rows = result->rows, dim = result->value_dim;
  const struct tensor_outline tensors[] = {{"outputs", 2, {count, dim}},
                                           {"weights", 2, {count, rows}}};
  struct buffer note;
  struct json_writer writer;
  buffer_init(&note, exchange->api->max_reply_bytes);
  reply->body.limit = exchange->api->max_reply_bytes;
  json_begin(&writer, &note);
  json_open_object(&writer);
  write_memory(&writer, exchange);
  if (result->top > 0) {
    json_name(&writer, "weights");
    write_largest(&writer, exchange);
  }
  json_close_object(&writer);
  const struct tensors_note notes[] = {{TENSORS_REPLY, note.data, note.length}};
  const struct tensors_outline outline = {
      .tensors = tensors, .tensor_count = rows > 0 ? 2 : 1, .notes = notes, .note_count = 1};
  if (note.status != BUFFER_OK)
    reply->body.status = note.status;
  else if (!tensors_write_header(&reply->body, &outline, NULL) && reply->body.status == BUFFER_OK)
    reply->body.status = BUFFER_FULL; /* the header itself is too long */
  buffer_append(&reply->body, result->outputs, count * dim * sizeof(float));
  if (rows > 0) buffer_append(&reply->body, result->weights, count * rows * sizeof(float));
  buffer_free(&note);
  reply->content_type = HTTP_TENSORS_TYPE;
  api_finish(exchange->api, reply);
}

/* Room for the outputs, so that their buffer needn't grow and move. */
static void reserve_outputs(const struct attend_exchange *exchange, struct buffer *body) {
  enum { TEXT_AROUND = 512, NUMBER_AND_COMMA = 12 };
  const attn_result *result = attend_result(&exchange->request);
  const size_t numbers = result->query_count * result->value_dim;
  const size_t room = numbers * NUMBER_AND_COMMA + TEXT_AROUND;
  if (room < body->limit) buffer_reserve(body, room); /* beyond it the buffer would fail */
}

static void write_json(const struct attend_exchange *exchange, struct http_reply *reply) {
  const attn_result *result = attend_result(&exchange->request);
  struct json_writer writer;
  reply->body.limit = exchange->api->max_reply_bytes;
  reserve_outputs(exchange, &reply->body);
  json_begin(&writer, &reply->body);
  json_open_object(&writer);
  write_memory(&writer, exchange);
  json_name(&writer, "outputs");
  json_matrix(&writer, result->outputs, result->query_count, result->value_dim);
  if (result->rows > 0) {
    json_name(&writer, "weights");
    json_matrix(&writer, result->weights, result->query_count, result->rows);
  } else if (result->top > 0) {
    json_name(&writer, "weights");
    write_largest(&writer, exchange);
  }
  json_close_object(&writer);
  reply->content_type = "application/json";
  api_finish(exchange->api, reply);
}

/* ---- The way of a request ---- */

static void done(struct attend_request *request, const struct problem *problem) {
  struct attend_exchange *exchange = (struct attend_exchange *)request;
  if (problem)
    http_reply_problem(exchange->reply, problem);
  else if (exchange->http->reply_media == &http_tensors)
    write_tensors(exchange, exchange->reply);
  else
    write_json(exchange, exchange->reply);
  complete(exchange);
}

static bool is_abandoned(const struct attend_request *request) {
  return http_is_abandoned(((const struct attend_exchange *)request)->http);
}

static void refuse(struct attend_exchange *exchange, const struct problem *problem) {
  http_reply_problem(exchange->reply, problem);
  complete(exchange);
}

/* NULL if memory is short: then the reply has been completed. */
static struct attend_exchange *
exchange_create(const struct api *api, const struct http_request *http, struct http_reply *reply) {
  struct attend_exchange *exchange = calloc(1, sizeof *exchange);
  if (!exchange) {
    api_problem(reply, PROBLEM_OUT_OF_MEMORY, "", "there is not enough memory for the request");
    http_complete(reply);
    return NULL;
  }
  exchange->api = api;
  exchange->http = http;
  exchange->reply = reply;
  return exchange;
}

/* The body was read, and the memory is open. */
static void submit(struct attend_exchange *exchange) {
  const struct http_request *http = exchange->http;
  struct attend_request *request = &exchange->request;
  const struct attend_body *body = &exchange->body;
  request->queries = body->queries.data;
  request->query_count = body->queries.rows;
  request->query_dim = body->queries.cols;
  request->score = attn_score_ref(body->score);
  request->normalization = attn_normalization_ref(body->normalization);
  request->weights = body->weights;
  request->top = body->top;
  request->began = http->began;
  request->timeout_seconds = body->timeout_ms * 1e-3;
  request->encoding = &encoding;
  request->abandoned = is_abandoned;
  request->done = done;
  attend_submit(request,
                http->put_off   ? ATTEND_DEFERRED
                : http->at_once ? ATTEND_INLINE
                                : ATTEND_ON_WORKERS,
                http->put_off);
}

void api_answer_put_off(void *context, void **put_off) {
  const struct api *api = context;
  attend_run_deferred(&api->attend, put_off);
}

/* What is expected of a body's numbers in JSON, and of weights in the reply. */
#define SECONDS_PER_BODY_BYTE 3e-9
#define BYTES_PER_NUMBER      10.0
#define SECONDS_PER_WEIGHT    20e-9

/* A guess, made before the body is read: only what is short is looked at. */
static bool seems_to_want_weights(const struct http_request *request) {
  enum { SHORT = 4096 };
  const char *body = request->body;
  const size_t length = request->body_length;
  if (length > SHORT) return true;
  const char *end = body + length;
  for (const char *at = body; (at = memchr(at, '"', (size_t)(end - at))); at++) {
    const size_t left = (size_t)(end - at);
    if (left >= 6 && memcmp(at, "\"none\"", 6) == 0) return false;
    if (left >= 5 && memcmp(at, "\"top\"", 5) == 0) return false;
  }
  return true;
}

double api_attend_stored_cost(void *context, const struct http_request *request) {
  const struct api *api = context;
  const double length = (double)request->body_length;
  double seconds = length * SECONDS_PER_BODY_BYTE;
  struct memory *memory = registry_pin(api->registry, request->name);
  if (memory) {
    const size_t dim = attn_snapshot_key_dim(memory->snapshot);
    const double queries = fmax(1, length / (BYTES_PER_NUMBER * (double)dim));
    seconds += queries * batcher_cost(memory->snapshot, 1, dim);
    if (seems_to_want_weights(request))
      seconds += queries * (double)attn_snapshot_rows(memory->snapshot) * SECONDS_PER_WEIGHT;
    memory_free(memory);
  }
  return seconds;
}

/* At the worst half of the numbers are queries of one component, half are keys. */
double api_attend_ad_hoc_cost(void *context, const struct http_request *request) {
  (void)context;
  const double length = (double)request->body_length;
  const double half = length / BYTES_PER_NUMBER / 2;
  return length * SECONDS_PER_BODY_BYTE + half * half * SECONDS_PER_WEIGHT;
}

static bool parse(enum attend_kind kind, const struct http_request *request,
                  struct attend_body *body, struct problem *problem) {
  if (request->body_media == &http_tensors)
    return tensor_body_parse_attend(kind, request->body, request->body_length, body, problem);
  return body_parse_attend(kind, request->body, request->body_length, body, problem);
}

void api_attend_stored(void *context, const struct http_request *http, struct http_reply *reply) {
  const struct api *api = context;
  struct problem problem;
  struct attend_exchange *exchange = exchange_create(api, http, reply);
  if (!exchange) return;
  if (attend_open_stored(&exchange->request, &api->attend, http->name, &problem) &&
      parse(ATTEND_STORED, http, &exchange->body, &problem))
    submit(exchange);
  else
    refuse(exchange, &problem);
}

/* What a memory has that is made for one request: a memory's defaults. */
static bool fill_defaults(struct attend_body *body, struct problem *problem) {
  attn_status status = ATTN_OK;
  if (!body->score) status = attn_score_create(&body->score, "scaled_dot", NULL, 0, NULL);
  if (status == ATTN_OK && !body->normalization) {
    body->normalization = body_default_normalization(body->score);
    if (!body->normalization) status = ATTN_NO_MEMORY;
  }
  return status == ATTN_OK || problem_set_status(problem, status, "");
}

void api_attend_ad_hoc(void *context, const struct http_request *http, struct http_reply *reply) {
  const struct api *api = context;
  struct problem problem;
  struct attend_exchange *exchange = exchange_create(api, http, reply);
  if (!exchange) return;
  struct attend_body *body = &exchange->body;
  if (parse(ATTEND_AD_HOC, http, body, &problem) && fill_defaults(body, &problem)) {
    const struct attend_rows rows = {.keys = body->keys.data,
                                     .values = body->values.data,
                                     .count = body->keys.rows,
                                     .key_dim = body->keys.cols,
                                     .value_dim = body->values.cols};
    if (attend_open_ad_hoc(&exchange->request, &api->attend, &rows, &problem)) {
      submit(exchange);
      return;
    }
  }
  refuse(exchange, &problem);
}
