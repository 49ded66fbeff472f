/* What joins the reader of tensors and the tables of bodies.
 *
 * Once the header is there, all but the numbers is known. So where rows go to a
 * sink and no parameter of the score is a tensor, the JSON is read at once and
 * most bodies that have a fault are refused before gigabytes of them were sent.
 * With such parameters the JSON has to wait for their numbers; only the dtype,
 * without which no destination can be opened, is looked up in advance.
 *
 * A sink gets whole rows: a row that two runs of numbers share is put together
 * here, the others pass through without a copy.
 *
 * What a header tells of is a claim of some hundred bytes. It is held against the bytes that
 * can still come before anything is done for it, and then room is made for numbers
 * that are there. */
#include "codec/tensor_body.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "codec/safetensors.h"

/* On its way to the sink: one of the two tensors that have rows. */
struct row_stream {
  bool (*put)(void *context, size_t first_row, size_t rows, const float *numbers,
              struct problem *problem);
  void *context;
  size_t cols;
  struct float_list partial; /* one row, as far as it has come */
};

struct tensor_upload {
  struct tensor_upload_options options;
  struct tensor_rows_sink sink;
  struct tensors_reader *reader;
  struct tensor_set set;
  struct buffer request;
  size_t held;
  struct row_stream keys, values;
  bool parsed;
  union {
    struct memory_body memory;
    struct rows_body rows;
    struct attend_body attend;
  } body;
};

/* ---- Rows to a sink ---- */

static bool keep_partial(struct row_stream *stream, const float *numbers, size_t count,
                         struct problem *problem) {
  struct float_list *partial = &stream->partial;
  if (count == 0) return true;
  while (partial->capacity - partial->count < count)
    if (!float_list_grow(partial, stream->cols))
      return problem_set_status(problem, ATTN_NO_MEMORY, "");
  memcpy(partial->data + partial->count, numbers, count * sizeof *numbers);
  partial->count += count;
  return true;
}

static bool put_numbers(void *context, size_t first, const float *numbers, size_t count,
                        struct problem *problem) {
  struct row_stream *stream = context;
  const size_t cols = stream->cols, have = stream->partial.count;
  size_t row = first / cols;
  assert(have == first % cols);
  if (have > 0) {
    const size_t missing = cols - have, taken = count < missing ? count : missing;
    if (!keep_partial(stream, numbers, taken, problem)) return false;
    numbers += taken;
    count -= taken;
    if (taken < missing) return true;
    stream->partial.count = 0;
    if (!stream->put(stream->context, row++, 1, stream->partial.data, problem)) return false;
  }
  const size_t rows = count / cols, rest = count % cols;
  if (rows > 0 && !stream->put(stream->context, row, rows, numbers, problem)) return false;
  return keep_partial(stream, numbers + rows * cols, rest, problem);
}

static bool open_stream(struct tensor_upload *upload, struct row_stream *stream,
                        const struct tensor *tensor, struct problem *problem) {
  stream->context = upload->sink.context;
  stream->cols = tensor->shape[1];
  return tensors_deliver(upload->reader, tensor, put_numbers, stream, problem);
}

/* As the tables check them, but before there are numbers. */
static bool check_shapes(const struct tensor_upload *upload, const struct tensor *keys,
                         const struct tensor *values, struct problem *problem) {
  struct tensor_set set = {.count = 0};
  struct rows_body shapes = {.ids = NULL};
  struct named_tensor *key_item = tensor_set_add(&set, keys);
  struct named_tensor *value_item = tensor_set_add(&set, values);
  if (!named_tensor_take(key_item, 2, &shapes.keys, problem) ||
      !named_tensor_take(value_item, 2, &shapes.values, problem) ||
      !rows_body_settle(&shapes, problem))
    return false;
  if (shapes.keys.rows > 0 || upload->options.kind == BODY_MEMORY) return true;
  return named_tensor_fault(key_item, problem, PROBLEM_SHAPE_MISMATCH, "expected at least one row");
}

static bool open_sink(struct tensor_upload *upload, struct problem *problem) {
  const struct tensor *keys = tensors_find(upload->reader, "keys");
  const struct tensor *values = tensors_find(upload->reader, "values");
  attn_dtype dtype = ATTN_F32;
  if (!keys || !values) return true; /* what is missing is told by the table */
  upload->keys.put = upload->sink.keys;
  upload->values.put = upload->sink.values;
  return check_shapes(upload, keys, values, problem) &&
         (upload->options.kind != BODY_MEMORY ||
          body_peek_dtype(upload->request.data, upload->request.length, &dtype, problem)) &&
         open_stream(upload, &upload->keys, keys, problem) &&
         open_stream(upload, &upload->values, values, problem) &&
         upload->sink.open(upload->sink.context, keys->shape[0], keys->shape[1], values->shape[1],
                           dtype, problem);
}

/* ---- The JSON ---- */

static bool parse_json(struct tensor_upload *upload, struct problem *problem) {
  const char *text = upload->request.data;
  const size_t length = upload->request.length;
  switch (upload->options.kind) {
  case BODY_MEMORY:
    return body_parse_memory_with(&upload->options.override, &upload->set, text, length,
                                  &upload->body.memory, problem);
  case BODY_ROWS:
    return body_parse_rows_with(&upload->set, text, length, &upload->body.rows, problem);
  case BODY_ATTEND_STORED:
    return body_parse_attend_with(ATTEND_STORED, &upload->set, text, length, &upload->body.attend,
                                  problem);
  case BODY_ATTEND_AD_HOC:
    return body_parse_attend_with(ATTEND_AD_HOC, &upload->set, text, length, &upload->body.attend,
                                  problem);
  }
  return false;
}

/* "The body is not valid JSON" would be said of a body that is not meant to be. */
static bool explain(struct problem *problem) {
  if (problem->code != PROBLEM_INVALID_JSON) return false;
  const struct problem fault = *problem;
  return problem_set(problem, PROBLEM_INVALID_TENSORS, fault.pointer,
                     "\"" TENSORS_REQUEST "\" of __metadata__ is not valid JSON: %s", fault.detail);
}

static bool parse(struct tensor_upload *upload, struct problem *problem) {
  upload->parsed = parse_json(upload, problem);
  buffer_free(&upload->request);
  return upload->parsed || explain(problem);
}

static bool fetch_request(struct tensor_upload *upload, struct problem *problem) {
  struct buffer *request = &upload->request;
  if (!tensors_metadata(upload->reader, TENSORS_REQUEST, request)) buffer_puts(request, "{}");
  buffer_text(request);
  return request->status == BUFFER_OK || problem_set_status(problem, ATTN_NO_MEMORY, "");
}

/* ---- The header ---- */

/* A tensor that is held here. */
static bool hold(struct tensor_upload *upload, const struct tensor *tensor,
                 struct named_tensor *item, struct problem *problem) {
  const size_t most = upload->options.held_bytes / sizeof(float);
  if (upload->options.held_bytes > 0 && tensor->count > most - upload->held)
    return named_tensor_fault(item, problem, PROBLEM_BODY_TOO_LARGE,
                              "tensors of up to %zu numbers are taken, got %zu", most,
                              tensor->count);
  upload->held += tensor->count;
  if (upload->options.whole && !named_tensor_reserve(item, problem)) return false;
  return tensors_deliver(upload->reader, tensor, named_tensor_sink, item, problem);
}

static bool is_row_tensor(const struct tensor_upload *upload, const char *name) {
  return upload->options.rows && (strcmp(name, "keys") == 0 || strcmp(name, "values") == 0);
}

static bool take_tensor(struct tensor_upload *upload, const struct tensor *tensor,
                        struct problem *problem) {
  if (!body_check_tensor(upload->options.kind, tensor->name, problem)) return false;
  struct named_tensor *item = tensor_set_add(&upload->set, tensor);
  if (!item) return problem_set(problem, PROBLEM_INTERNAL, "", "there are too many tensors");
  return is_row_tensor(upload, tensor->name) || hold(upload, tensor, item, problem);
}

static bool has_params(const struct tensor_set *set) {
  for (size_t i = 0; i < set->count; i++)
    if (strchr(set->items[i].name, '.')) return true;
  return false;
}

/* That the body can have as many numbers as the header tells of. */
static bool check_claim(const struct tensor_upload *upload, struct problem *problem) {
  const struct tensor_upload_options *options = &upload->options;
  const bool known = options->body_bytes > 0;
  const uint64_t most = known ? options->body_bytes : options->most_bytes;
  const size_t head = tensors_head_bytes(upload->reader);
  const size_t bytes = tensors_data_bytes(upload->reader);
  const uint64_t left = most > head ? most - head : 0;
  if (most == 0 || bytes <= left) return true;
  if (known)
    return problem_set(problem, PROBLEM_INVALID_TENSORS, "",
                       "the header tells of %zu bytes of numbers, the body has %llu behind it",
                       bytes, (unsigned long long)left);
  return problem_set(problem, PROBLEM_BODY_TOO_LARGE, "",
                     "the header tells of %zu bytes of numbers; a body has at most %llu bytes",
                     bytes, (unsigned long long)most);
}

static bool see_header(void *context, struct tensors_reader *reader, struct problem *problem) {
  struct tensor_upload *upload = context;
  const struct tensor *tensor;
  if (!check_claim(upload, problem)) return false;
  for (size_t i = 0; (tensor = tensors_at(reader, i)); i++)
    if (!take_tensor(upload, tensor, problem)) return false;
  if (!fetch_request(upload, problem)) return false;
  if (!upload->options.rows) return true;
  const bool early = !has_params(&upload->set);
  if (!open_sink(upload, problem)) return explain(problem);
  return !early || parse(upload, problem);
}

/* ---- Life ---- */

struct tensor_upload *tensor_upload_create(const struct tensor_upload_options *options) {
  const struct tensors_limits limits = {.header_bytes = options->header_bytes};
  struct tensor_upload *upload = calloc(1, sizeof *upload);
  if (!upload) return NULL;
  upload->options = *options;
  if (options->rows) upload->sink = *options->rows;
  buffer_init(&upload->request, 0);
  upload->reader = tensors_create(&limits, see_header, upload);
  if (upload->reader) return upload;
  free(upload);
  return NULL;
}

static void free_body(struct tensor_upload *upload) {
  if (!upload->parsed) return;
  if (upload->options.kind == BODY_MEMORY)
    memory_body_free(&upload->body.memory);
  else if (upload->options.kind == BODY_ROWS)
    rows_body_free(&upload->body.rows);
  else
    attend_body_free(&upload->body.attend);
}

void tensor_upload_free(struct tensor_upload *upload) {
  if (!upload) return;
  free_body(upload);
  tensors_free(upload->reader);
  tensor_set_free(&upload->set);
  buffer_free(&upload->request);
  float_list_free(&upload->keys.partial);
  float_list_free(&upload->values.partial);
  free(upload);
}

bool tensor_upload_feed(struct tensor_upload *upload, const char *bytes, size_t count,
                        struct problem *problem) {
  return tensors_feed(upload->reader, bytes, count, problem);
}

static bool finish(struct tensor_upload *upload, struct problem *problem) {
  if (!tensors_finish(upload->reader, problem)) return false;
  if (upload->parsed) return true;
  for (size_t i = 0; i < upload->set.count; i++)
    named_tensor_settle(&upload->set.items[i]);
  return parse(upload, problem);
}

bool tensor_upload_finish_memory(struct tensor_upload *upload, struct memory_body *body,
                                 struct problem *problem) {
  if (!finish(upload, problem)) return false;
  *body = upload->body.memory;
  upload->parsed = false;
  return true;
}

bool tensor_upload_finish_rows(struct tensor_upload *upload, struct rows_body *body,
                               struct problem *problem) {
  if (!finish(upload, problem)) return false;
  *body = upload->body.rows;
  upload->parsed = false;
  return true;
}

bool tensor_upload_finish_attend(struct tensor_upload *upload, struct attend_body *body,
                                 struct problem *problem) {
  if (!finish(upload, problem)) return false;
  *body = upload->body.attend;
  upload->parsed = false;
  return true;
}

/* ---- Whole bodies ---- */

/* All of it fed; NULL with the problem filled. */
static struct tensor_upload *read_whole(const struct tensor_upload_options *options,
                                        const char *bytes, size_t count, struct problem *problem) {
  struct tensor_upload *upload = tensor_upload_create(options);
  if (!upload) {
    problem_set_status(problem, ATTN_NO_MEMORY, "");
    return NULL;
  }
  if (tensor_upload_feed(upload, bytes, count, problem)) return upload;
  tensor_upload_free(upload);
  return NULL;
}

bool tensor_body_parse_memory(const struct memory_override *override, const char *bytes,
                              size_t count, struct memory_body *body, struct problem *problem) {
  struct tensor_upload_options options = {.kind = BODY_MEMORY, .body_bytes = count, .whole = true};
  if (override) options.override = *override;
  struct tensor_upload *upload = read_whole(&options, bytes, count, problem);
  const bool parsed = upload && tensor_upload_finish_memory(upload, body, problem);
  tensor_upload_free(upload);
  return parsed;
}

bool tensor_body_parse_rows(const char *bytes, size_t count, struct rows_body *body,
                            struct problem *problem) {
  const struct tensor_upload_options options = {
      .kind = BODY_ROWS, .body_bytes = count, .whole = true};
  struct tensor_upload *upload = read_whole(&options, bytes, count, problem);
  const bool parsed = upload && tensor_upload_finish_rows(upload, body, problem);
  tensor_upload_free(upload);
  return parsed;
}

bool tensor_body_parse_attend(enum attend_kind kind, const char *bytes, size_t count,
                              struct attend_body *body, struct problem *problem) {
  const struct tensor_upload_options options = {.kind = kind == ATTEND_STORED ? BODY_ATTEND_STORED
                                                                              : BODY_ATTEND_AD_HOC,
                                                .body_bytes = count,
                                                .whole = true};
  struct tensor_upload *upload = read_whole(&options, bytes, count, problem);
  const bool parsed = upload && tensor_upload_finish_attend(upload, body, problem);
  tensor_upload_free(upload);
  return parsed;
}
