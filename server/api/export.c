/* GET of a memory as safetensors: keys and values as float32, and beside them
 * what a PUT of the same bytes needs to make the same memory.
 *
 * The reply is written while it is sent, row by row from the pinned version:
 * a memory of gigabytes takes no second copy, and changes meanwhile don't show. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "codec/safetensors.h"
#include "codec/tensor_body.h"

struct export {
  struct memory *memory;
  struct buffer head;            /* the header, then the tensors of the score */
  size_t key_bytes, value_bytes; /* of a row */
  size_t row;                    /* that `numbers` has; SIZE_MAX: none */
  bool values;                   /* of which kind */
  float numbers[];
};

static void release(void *context) {
  struct export *export = context;
  memory_free(export->memory);
  buffer_free(&export->head);
  free(export);
}

/* The row that position `at` of all keys or all values lies in. */
static size_t copy_from(struct export *export, bool values, uint64_t at, char *bytes, size_t room) {
  const size_t size = values ? export->value_bytes : export->key_bytes;
  const size_t row = (size_t)(at / size), within = (size_t)(at % size);
  if (export->row != row || export->values != values) {
    attn_snapshot_get_row(export->memory->snapshot, row, values ? NULL : export->numbers,
                          values ? export->numbers : NULL);
    export->row = row;
    export->values = values;
  }
  const size_t count = size - within < room ? size - within : room;
  memcpy(bytes, (const char *)export->numbers + within, count);
  return count;
}

static ssize_t read_some(void *context, uint64_t at, char *bytes, size_t room) {
  struct export *export = context;
  const uint64_t rows = attn_snapshot_rows(export->memory->snapshot);
  const uint64_t keys = export->head.length, values = keys + rows * export->key_bytes;
  const uint64_t end = values + rows * export->value_bytes;
  size_t done = 0;
  while (done < room && at < end) {
    size_t count;
    if (at < keys) {
      count = export->head.length - (size_t)at < room - done ? export->head.length - (size_t)at
                                                             : room - done;
      memcpy(bytes + done, export->head.data + at, count);
    } else {
      const bool of_values = at >= values;
      count =
          copy_from(export, of_values, at - (of_values ? values : keys), bytes + done, room - done);
    }
    done += count;
    at += count;
  }
  return done > 0 ? (ssize_t)done : -1;
}

/* ---- The header ---- */

static bool all_have_ids(const struct memory *memory) {
  const size_t rows = attn_snapshot_rows(memory->snapshot);
  size_t length;
  for (size_t i = 0; i < rows; i++)
    if (!row_tags_id(memory->tags, i, &length)) return false;
  return rows > 0;
}

/* The members of a PUT's body but for its tensors. */
static void write_request(struct json_writer *writer, const struct memory *memory) {
  json_open_object(writer);
  json_name(writer, "dtype");
  json_text(writer, attn_dtype_info_at((size_t)attn_snapshot_dtype(memory->snapshot))->name);
  json_name(writer, "score");
  api_write_score(writer, memory, false);
  json_name(writer, "normalization");
  api_write_normalization(writer, memory);
  if (memory->ttl_ms > 0) {
    json_name(writer, "ttl_seconds");
    json_double(writer, (double)memory->ttl_ms / 1000);
  }
  if (all_have_ids(memory)) {
    json_name(writer, "ids");
    json_open_array(writer);
    for (size_t i = 0; i < attn_snapshot_rows(memory->snapshot); i++) {
      size_t length;
      const char *id = row_tags_id(memory->tags, i, &length);
      json_chars(writer, id, length);
    }
    json_close_array(writer);
  }
  json_close_object(writer);
}

enum { MOST_TENSORS = ATTN_PARAMS_MAX + 2 /* keys and values */ };

static bool write_head(struct export *export, size_t *data_bytes) {
  const struct memory *memory = export->memory;
  const size_t rows = attn_snapshot_rows(memory->snapshot);
  const size_t key_dim = attn_snapshot_key_dim(memory->snapshot);
  struct tensor_outline tensors[MOST_TENSORS];
  attn_argument arguments[MOST_TENSORS];
  char names[MOST_TENSORS][40];
  size_t count = 0;
  const attn_score_info *score = attn_score_get_info(memory->score);
  for (size_t i = 0; i < score->param_count; i++) {
    const attn_argument argument = attn_score_get_argument(memory->score, i, key_dim);
    if (!argument.data) continue;
    snprintf(names[count], sizeof names[count], "score.%s", argument.name);
    tensors[count] =
        (struct tensor_outline){.name = names[count],
                                .dims = score->params[i].kind == ATTN_PARAM_MATRIX ? 2 : 1,
                                .shape = {argument.rows, argument.cols}};
    arguments[count++] = argument;
  }
  const size_t score_tensors = count;
  tensors[count++] = (struct tensor_outline){.name = "keys", .dims = 2, .shape = {rows, key_dim}};
  tensors[count++] = (struct tensor_outline){
      .name = "values", .dims = 2, .shape = {rows, attn_snapshot_value_dim(memory->snapshot)}};

  struct buffer request, meta;
  struct json_writer writer;
  buffer_init(&request, 0);
  buffer_init(&meta, 0);
  json_begin(&writer, &request);
  write_request(&writer, memory);
  json_begin(&writer, &meta);
  api_write_meta(&writer, memory);
  const struct tensors_note notes[] = {{TENSORS_REQUEST, request.data, request.length},
                                       {TENSORS_REPLY, meta.data, meta.length}};
  const struct tensors_outline outline = {
      .tensors = tensors, .tensor_count = count, .notes = notes, .note_count = 2};
  bool written = request.status == BUFFER_OK && meta.status == BUFFER_OK &&
                 tensors_write_header(&export->head, &outline, data_bytes);
  for (size_t i = 0; i < score_tensors && written; i++) {
    const size_t bytes = arguments[i].rows * arguments[i].cols * sizeof(float);
    written = buffer_append(&export->head, arguments[i].data, bytes);
    *data_bytes -= bytes;
  }
  buffer_free(&request);
  buffer_free(&meta);
  return written;
}

void api_export(struct memory *memory, struct http_reply *reply) {
  const size_t key_dim = attn_snapshot_key_dim(memory->snapshot);
  const size_t value_dim = attn_snapshot_value_dim(memory->snapshot);
  const size_t wider = key_dim > value_dim ? key_dim : value_dim;
  struct export *export = calloc(1, sizeof *export + wider * sizeof(float));
  size_t data_bytes = 0;
  if (export) {
    export->memory = memory_ref(memory);
    export->key_bytes = key_dim * sizeof(float);
    export->value_bytes = value_dim * sizeof(float);
    export->row = SIZE_MAX;
    buffer_init(&export->head, 0);
  }
  if (!export || !write_head(export, &data_bytes)) {
    const bool too_long = export && export->head.status == BUFFER_OK;
    if (export) release(export);
    if (too_long)
      api_problem(
          reply, PROBLEM_REPLY_TOO_LARGE, "",
          "the ids of so many rows don't fit the header of a safetensors file; GET its rows "
          "page by page");
    else
      api_problem(reply, PROBLEM_OUT_OF_MEMORY, "", "there is not enough memory for the export");
    return;
  }
  reply->content_type = HTTP_TENSORS_TYPE;
  api_set_etag(reply, memory->version);
  reply->stream = (struct http_stream){.length = export->head.length + data_bytes,
                                       .read = read_some,
                                       .release = release,
                                       .context = export};
}
