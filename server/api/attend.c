/* Attend: a batch of queries in, outputs and weights out.
 *
 * The whole reply is computed from one pinned version of the memory. Nothing is
 * locked while it computes; a replace or a delete meanwhile goes unnoticed here
 * and frees the old rows when the last query on them is done.
 *
 * An asking is one request on its way: made by the handler when the body was
 * read, handed to the batcher, written and freed in answered(), on whichever
 * worker computed it. Between those it belongs to the batcher. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "codec/safetensors.h"
#include "codec/tensor_body.h"

struct asking {
  struct question question; /* first, so that one can be had from the other */
  struct api *api;
  const struct http_request *http;
  struct http_reply *reply;
  struct memory *memory; /* pinned; NULL for an ad-hoc one */
  struct attend_body body;
  attn_snapshot *snapshot;
  attn_score *score;
  attn_normalization *normalization;
};

static void asking_free(struct asking *asking) {
  if (!asking) return;
  free(asking->question.request.outputs);
  free(asking->question.request.weights);
  free(asking->question.request.largest);
  free(asking->question.request.largest_count);
  attn_snapshot_free(asking->snapshot);
  attn_score_free(asking->score);
  attn_normalization_free(asking->normalization);
  memory_free(asking->memory);
  attend_body_free(&asking->body);
  free(asking);
}

static bool check_shapes(const struct asking *asking, struct http_reply *reply) {
  const struct matrix *queries = &asking->body.queries;
  const size_t key_dim = attn_snapshot_key_dim(asking->snapshot);
  const size_t wanted = attn_score_query_dim(asking->score, key_dim);
  struct problem problem;
  if (wanted == 0) {
    body_check_score(asking->score, key_dim, &problem);
    http_reply_problem(reply, &problem);
  } else if (queries->cols != wanted && wanted == key_dim) {
    api_problem(reply, PROBLEM_SHAPE_MISMATCH, "/queries/0",
                "query 0 has %zu components, the memory's keys have %zu", queries->cols, key_dim);
  } else if (queries->cols != wanted) {
    api_problem(reply, PROBLEM_SHAPE_MISMATCH, "/queries/0",
                "query 0 has %zu components, the score %s asks for %zu", queries->cols,
                attn_score_get_info(asking->score)->name, wanted);
  } else if (attn_snapshot_rows(asking->snapshot) == 0) {
    api_problem(reply, PROBLEM_EMPTY_MEMORY, "",
                "the memory has no rows; put some there before attending to it");
  } else {
    return true;
  }
  return false;
}

/* `count` x `each` items of `size` bytes, held against the limit of a reply:
 * each of them takes at least that many bytes of text. */
static void *allocate(const struct api *api, size_t count, size_t each, size_t size,
                      size_t text_bytes, struct http_reply *reply) {
  size_t total, text, bytes;
  if (__builtin_mul_overflow(count, each, &total) ||
      __builtin_mul_overflow(total, text_bytes, &text) || text > api->max_reply_bytes ||
      __builtin_mul_overflow(total, size, &bytes)) {
    api_problem(reply, PROBLEM_REPLY_TOO_LARGE, "",
                "%zu x %zu numbers are more than a reply of at most %zu bytes can hold; send fewer "
                "queries, or ask for weights \"none\" or {\"top\": K}",
                count, each, api->max_reply_bytes);
    return NULL;
  }
  void *memory = malloc(bytes);
  if (!memory)
    api_problem(reply, PROBLEM_OUT_OF_MEMORY, "", "there is not enough memory for the reply");
  return memory;
}

static bool make_room(struct asking *asking, struct http_reply *reply) {
  enum { DIGIT_AND_COMMA = 2, SHORTEST_ENTRY = 22 /* {"row":0,"weight":0.5} */ };
  const struct api *api = asking->api;
  attn_request *request = &asking->question.request;
  const size_t count = request->query_count, rows = attn_snapshot_rows(asking->snapshot);
  request->outputs = allocate(api, count, attn_snapshot_value_dim(asking->snapshot), sizeof(float),
                              DIGIT_AND_COMMA, reply);
  if (!request->outputs) return false;
  if (request->weights_mode == ATTN_WEIGHTS_FULL) {
    request->weights = allocate(api, count, rows, sizeof(float), DIGIT_AND_COMMA, reply);
    return request->weights != NULL;
  }
  if (request->weights_mode == ATTN_WEIGHTS_TOP) {
    const size_t most = request->top < rows ? request->top : rows;
    request->largest = allocate(api, count, most, sizeof(attn_weight), SHORTEST_ENTRY, reply);
    if (!request->largest) return false;
    request->largest_count = allocate(api, count, 1, sizeof(size_t), DIGIT_AND_COMMA, reply);
    return request->largest_count != NULL;
  }
  return true;
}

static void write_largest(struct json_writer *writer, const struct asking *asking) {
  const attn_request *request = &asking->question.request;
  const struct row_tags *tags = asking->memory ? asking->memory->tags : NULL;
  const size_t rows = attn_snapshot_rows(asking->snapshot);
  const size_t room = request->top < rows ? request->top : rows;
  json_open_array(writer);
  for (size_t q = 0; q < request->query_count; q++) {
    json_open_array(writer);
    for (size_t i = 0; i < request->largest_count[q]; i++) {
      const attn_weight *weight = &request->largest[q * room + i];
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

static void write_memory(struct json_writer *writer, const struct asking *asking) {
  if (!asking->memory) return;
  json_name(writer, "memory");
  json_text(writer, asking->memory->name);
  json_name(writer, "version");
  json_int64(writer, asking->memory->version);
}

/* Outputs and full weights as tensors; what is no matrix goes into the note. */
static void write_tensors(const struct asking *asking, struct http_reply *reply) {
  const attn_request *request = &asking->question.request;
  const size_t count = request->query_count, rows = attn_snapshot_rows(asking->snapshot);
  const size_t dim = attn_snapshot_value_dim(asking->snapshot);
  const bool full = request->weights_mode == ATTN_WEIGHTS_FULL;
  const struct tensor_outline tensors[] = {{"outputs", 2, {count, dim}},
                                           {"weights", 2, {count, rows}}};
  struct buffer note;
  struct json_writer writer;
  buffer_init(&note, asking->api->max_reply_bytes);
  reply->body.limit = asking->api->max_reply_bytes;
  json_begin(&writer, &note);
  json_open_object(&writer);
  write_memory(&writer, asking);
  if (request->weights_mode == ATTN_WEIGHTS_TOP) {
    json_name(&writer, "weights");
    write_largest(&writer, asking);
  }
  json_close_object(&writer);
  const struct tensors_note notes[] = {{TENSORS_REPLY, note.data, note.length}};
  const struct tensors_outline outline = {
      .tensors = tensors, .tensor_count = full ? 2 : 1, .notes = notes, .note_count = 1};
  if (note.status != BUFFER_OK)
    reply->body.status = note.status;
  else if (!tensors_write_header(&reply->body, &outline, NULL) && reply->body.status == BUFFER_OK)
    reply->body.status = BUFFER_FULL; /* the header itself is too long */
  buffer_append(&reply->body, request->outputs, count * dim * sizeof(float));
  if (full) buffer_append(&reply->body, request->weights, count * rows * sizeof(float));
  buffer_free(&note);
  reply->content_type = HTTP_TENSORS_TYPE;
  api_finish(asking->api, reply);
}

/* Room for the outputs, so that their buffer needn't grow and move. */
static void reserve_outputs(const struct asking *asking, struct buffer *body) {
  enum { TEXT_AROUND = 512, NUMBER_AND_COMMA = 12 };
  const size_t dim = attn_snapshot_value_dim(asking->snapshot);
  const size_t room = asking->question.request.query_count * dim * NUMBER_AND_COMMA + TEXT_AROUND;
  if (room < body->limit) buffer_reserve(body, room); /* beyond it the buffer would fail */
}

static void write_json(const struct asking *asking, struct http_reply *reply) {
  const attn_request *request = &asking->question.request;
  struct json_writer writer;
  reply->body.limit = asking->api->max_reply_bytes;
  reserve_outputs(asking, &reply->body);
  json_begin(&writer, &reply->body);
  json_open_object(&writer);
  write_memory(&writer, asking);
  json_name(&writer, "outputs");
  json_matrix(&writer, request->outputs, request->query_count,
              attn_snapshot_value_dim(asking->snapshot));
  if (request->weights_mode == ATTN_WEIGHTS_FULL) {
    json_name(&writer, "weights");
    json_matrix(&writer, request->weights, request->query_count,
                attn_snapshot_rows(asking->snapshot));
  } else if (request->weights_mode == ATTN_WEIGHTS_TOP) {
    json_name(&writer, "weights");
    write_largest(&writer, asking);
  }
  json_close_object(&writer);
  reply->content_type = "application/json";
  api_finish(asking->api, reply);
}

/* ---- The way of a request ---- */

static void write_failure(const struct asking *asking, struct http_reply *reply) {
  const struct question *question = &asking->question;
  struct problem problem;
  if (question->late) {
    api_problem(reply, PROBLEM_TIMEOUT, "", "the answer was not there in time and was given up");
  } else if (question->status == ATTN_NOT_REPRESENTABLE) {
    api_problem(reply, PROBLEM_NOT_REPRESENTABLE, "",
                "the answer to query %zu has a number beyond the range of float32",
                question->fault_query);
  } else {
    problem_set_status(&problem, question->status, "");
    http_reply_problem(reply, &problem);
  }
}

static void answered(struct question *question) {
  struct asking *asking = (struct asking *)question;
  struct http_reply *reply = asking->reply;
  struct metrics *metrics = asking->api->metrics;
  if (question->status == ATTN_OK) {
    const size_t queries = question->request.query_count;
    metrics_observe(metrics, HISTOGRAM_ATTEND_SECONDS, question->seconds);
    metrics_add(metrics, METRIC_QUERIES, (int64_t)queries);
    metrics_add(metrics, METRIC_SCORES, (int64_t)(queries * attn_snapshot_rows(asking->snapshot)));
    metrics_add(metrics, METRIC_BATCHED, question->companions > 0);
    if (asking->http->wants_tensors)
      write_tensors(asking, reply);
    else
      write_json(asking, reply);
  } else {
    write_failure(asking, reply);
  }
  asking_free(asking);
  http_complete(reply);
}

static bool is_abandoned(const struct question *question) {
  return http_is_abandoned(((const struct asking *)question)->http);
}

static void put_off(struct asking *asking) {
  void **kept = asking->http->put_off;
  struct question *list = *kept;
  batcher_put_off(asking->api->batcher, &list, &asking->question);
  *kept = list;
}

void api_answer_put_off(void *context, void **kept) {
  const struct api *api = context;
  struct question *list = *kept;
  batcher_answer_put_off(api->batcher, &list);
  *kept = list;
}

/* Takes the asking over, and the reply with it. */
static void ask(struct asking *asking) {
  struct http_reply *reply = asking->reply;
  if (!check_shapes(asking, reply)) goto refused;
  const struct matrix *queries = &asking->body.queries;
  const double timeout = asking->body.timeout_ms > 0 ? asking->body.timeout_ms * 1e-3
                                                     : asking->api->request_timeout_seconds;
  asking->question = (struct question){.snapshot = asking->snapshot,
                                       .request = {.queries = queries->data,
                                                   .query_count = queries->rows,
                                                   .query_dim = queries->cols,
                                                   .score = asking->score,
                                                   .normalization = asking->normalization,
                                                   .weights_mode = asking->body.weights,
                                                   .top = asking->body.top},
                                       .deadline = asking->http->began + timeout,
                                       .abandoned = is_abandoned,
                                       .done = answered};
  if (!make_room(asking, reply)) goto refused;
  if (asking->http->put_off)
    put_off(asking);
  else if (asking->http->at_once)
    batcher_answer_here(asking->api->batcher, &asking->question);
  else
    batcher_ask(asking->api->batcher, &asking->question);
  return;
refused:
  asking_free(asking);
  http_complete(reply);
}

static struct asking *asking_create(struct api *api, const struct http_request *request,
                                    struct http_reply *reply) {
  struct asking *asking = calloc(1, sizeof *asking);
  if (!asking) {
    api_problem(reply, PROBLEM_OUT_OF_MEMORY, "", "there is not enough memory for the request");
    http_complete(reply);
    return NULL;
  }
  asking->api = api;
  asking->http = request;
  asking->reply = reply;
  return asking;
}

static void refuse(struct asking *asking, const struct problem *problem) {
  struct http_reply *reply = asking->reply;
  http_reply_problem(reply, problem);
  asking_free(asking);
  http_complete(reply);
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
  if (request->body_media == HTTP_TENSORS)
    return tensor_body_parse_attend(kind, request->body, request->body_length, body, problem);
  return body_parse_attend(kind, request->body, request->body_length, body, problem);
}

void api_attend_stored(void *context, const struct http_request *request,
                       struct http_reply *reply) {
  struct api *api = context;
  struct problem problem;
  struct asking *asking = asking_create(api, request, reply);
  if (!asking) return;
  struct memory *memory = asking->memory = api_find(api, request->name, &problem);
  struct attend_body *body = &asking->body;
  if (!memory || !parse(ATTEND_STORED, request, body, &problem)) {
    refuse(asking, &problem);
  } else {
    asking->snapshot = attn_snapshot_ref(memory->snapshot);
    asking->score = attn_score_ref(body->score ? body->score : memory->score);
    asking->normalization =
        attn_normalization_ref(body->normalization ? body->normalization : memory->normalization);
    ask(asking);
  }
}

/* The parts of a memory that is made for one request, with a memory's defaults. */
static attn_status make_memory(struct asking *asking) {
  const struct attend_body *body = &asking->body;
  attn_snapshot *empty = NULL;
  asking->score = attn_score_ref(body->score);
  asking->normalization = attn_normalization_ref(body->normalization);
  attn_status status =
      asking->score ? ATTN_OK : attn_score_create(&asking->score, "scaled_dot", NULL, 0, NULL);
  if (status == ATTN_OK && !asking->normalization) {
    asking->normalization = body_default_normalization(asking->score);
    if (!asking->normalization) status = ATTN_NO_MEMORY;
  }
  if (status == ATTN_OK) status = attn_snapshot_create(&empty, body->keys.cols, body->values.cols);
  if (status == ATTN_OK)
    status = attn_snapshot_append(&asking->snapshot, empty, body->keys.data, body->values.data,
                                  body->keys.rows);
  attn_snapshot_free(empty);
  return status;
}

void api_attend_ad_hoc(void *context, const struct http_request *request,
                       struct http_reply *reply) {
  struct problem problem;
  struct asking *asking = asking_create(context, request, reply);
  if (!asking) return;
  if (!parse(ATTEND_AD_HOC, request, &asking->body, &problem)) {
    refuse(asking, &problem);
    return;
  }
  const attn_status status = make_memory(asking);
  if (status == ATTN_OK) {
    ask(asking);
  } else {
    problem_set_status(&problem, status, "");
    refuse(asking, &problem);
  }
}
