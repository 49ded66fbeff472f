/* The reader by push. Its state is where in the file it is: in the length, in
 * the header, in the data of one tensor. What it holds is the header until the
 * caller has seen it, one number that a piece has cut in two, and a run of
 * converted numbers; so it needs as much memory for 4 GB as for 4 KB.
 *
 * The header's own length is a number from outside: the buffer grows as its
 * bytes arrive and never by what was promised. */
#include "codec/safetensors.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "codec/safetensors_header.h"

/* Numbers that are converted and handed on at once: they stay in the cache. */
#define RUN ((size_t)4096)

/* Of the number that the file begins with. */
enum { LENGTH_BYTES = 8 };

enum place { IN_LENGTH, IN_HEADER, IN_DATA, FAILED };

struct tensors_reader {
  tensors_on_header *on_header;
  void *context;
  enum place place;
  size_t header_limit, header_length;
  struct buffer header;
  struct tensor_table table;
  size_t at;        /* the tensor whose data are due */
  size_t position;  /* in the data */
  char pending[16]; /* of the length, or of a number: what has come of it */
  size_t pending_count;
  float run[RUN];
};

struct tensors_reader *tensors_create(const struct tensors_limits *limits,
                                      tensors_on_header *on_header, void *context) {
  struct tensors_reader *reader = calloc(1, sizeof *reader);
  if (!reader) return NULL;
  reader->on_header = on_header;
  reader->context = context;
  reader->header_limit = limits->header_bytes;
  if (reader->header_limit == 0 || reader->header_limit > TENSORS_HEADER_MAX)
    reader->header_limit = TENSORS_HEADER_MAX;
  return reader;
}

void tensors_free(struct tensors_reader *reader) {
  if (!reader) return;
  buffer_free(&reader->header);
  tensor_table_free(&reader->table);
  free(reader);
}

/* ---- What the header says ---- */

const struct tensor *tensors_at(const struct tensors_reader *reader, size_t index) {
  return index < reader->table.count ? &reader->table.tensors[index] : NULL;
}

const struct tensor *tensors_find(const struct tensors_reader *reader, const char *name) {
  for (size_t i = 0; i < reader->table.count; i++)
    if (strcmp(reader->table.tensors[i].name, name) == 0) return &reader->table.tensors[i];
  return NULL;
}

size_t tensors_data_bytes(const struct tensors_reader *reader) {
  return reader->table.data_bytes;
}

size_t tensors_head_bytes(const struct tensors_reader *reader) {
  return LENGTH_BYTES + reader->header_length;
}

bool tensors_metadata(const struct tensors_reader *reader, const char *name, struct buffer *text) {
  return tensor_header_metadata(reader->header.data, reader->header.length, name, text);
}

bool tensors_deliver(struct tensors_reader *reader, const struct tensor *tensor, tensor_sink *sink,
                     void *context, struct problem *problem) {
  struct tensor *own = &reader->table.tensors[tensor - reader->table.tensors];
  if (own->kind == FLOATS_NONE) {
    char pointer[PROBLEM_POINTER_MAX] = "";
    pointer_push_name(pointer, own->name, strlen(own->name));
    return problem_set(problem, PROBLEM_INVALID_TYPE, pointer,
                       "expected numbers of F32, F64, F16 or BF16, got %s", own->dtype);
  }
  own->sink = sink;
  own->context = context;
  return true;
}

void tensor_push_place(char *pointer, const struct tensor *tensor, size_t element) {
  size_t indices[TENSOR_DIMS_MAX];
  pointer_push_name(pointer, tensor->name, strlen(tensor->name));
  for (size_t i = tensor->dims; i-- > 0;) {
    indices[i] = element % tensor->shape[i];
    element /= tensor->shape[i];
  }
  for (size_t i = 0; i < tensor->dims; i++)
    pointer_push_index(pointer, indices[i]);
}

/* ---- Bytes ---- */

/* Moves bytes to `pending` until `needed` are there; how many were taken. */
static size_t gather(struct tensors_reader *reader, const char *bytes, size_t count,
                     size_t needed) {
  size_t taken = needed - reader->pending_count;
  if (taken > count) taken = count;
  memcpy(reader->pending + reader->pending_count, bytes, taken);
  reader->pending_count += taken;
  return taken;
}

static bool read_length(struct tensors_reader *reader, struct problem *problem) {
  uint64_t length = 0;
  for (size_t i = LENGTH_BYTES; i-- > 0;)
    length = length << 8 | (unsigned char)reader->pending[i];
  reader->pending_count = 0;
  if (length > reader->header_limit)
    return problem_set(problem, PROBLEM_INVALID_TENSORS, "",
                       "the first 8 bytes tell of a header of %llu bytes; at most %zu are taken",
                       (unsigned long long)length, reader->header_limit);
  if (length == 0)
    return problem_set(problem, PROBLEM_INVALID_TENSORS, "",
                       "the first 8 bytes tell of a header of 0 bytes");
  reader->header_length = (size_t)length;
  buffer_init(&reader->header, reader->header_length);
  reader->place = IN_HEADER;
  return true;
}

static bool read_header(struct tensors_reader *reader, struct problem *problem) {
  bool read =
      tensor_table_read(reader->header.data, reader->header.length, &reader->table, problem) &&
      reader->on_header(reader->context, reader, problem);
  buffer_free(&reader->header);
  reader->place = IN_DATA;
  return read;
}

static bool feed_header(struct tensors_reader *reader, const char *bytes, size_t count,
                        struct problem *problem) {
  if (!buffer_append(&reader->header, bytes, count))
    return problem_set_status(problem, ATTN_NO_MEMORY, "");
  if (reader->header.data[0] != '{')
    return problem_set(problem, PROBLEM_INVALID_TENSORS, "",
                       "expected a header that begins with '{'");
  return reader->header.length < reader->header_length || read_header(reader, problem);
}

/* Whole numbers, of which `first` is the index of the first. */
static bool deliver(struct tensors_reader *reader, const struct tensor *tensor, size_t first,
                    const char *bytes, size_t count, struct problem *problem) {
  const size_t size = floats_bytes(tensor->kind);
  while (count > 0) {
    const size_t run = count < RUN ? count : RUN;
    const float *numbers = reader->run;
    if (floats_in_place(tensor->kind, bytes))
      numbers = (const float *)(const void *)bytes;
    else
      floats_convert(tensor->kind, bytes, run, reader->run);
    const size_t fault = floats_find_not_finite(numbers, run);
    if (fault < run) {
      char pointer[PROBLEM_POINTER_MAX] = "";
      tensor_push_place(pointer, tensor, first + fault);
      return floats_fault(tensor->kind, bytes + fault * size, pointer, problem);
    }
    if (!tensor->sink(tensor->context, first, numbers, run, problem)) return false;
    first += run;
    bytes += run * size;
    count -= run;
  }
  return true;
}

/* Bytes of one tensor. A number that lies across two pieces is put together in
 * `pending`. */
static bool feed_tensor(struct tensors_reader *reader, const struct tensor *tensor,
                        const char *bytes, size_t count, struct problem *problem) {
  if (!tensor->sink) return true;
  const size_t size = floats_bytes(tensor->kind);
  size_t element = (reader->position - tensor->begin) / size;
  if (reader->pending_count > 0) {
    const size_t taken = gather(reader, bytes, count, size);
    bytes += taken;
    count -= taken;
    if (reader->pending_count < size) return true;
    reader->pending_count = 0;
    if (!deliver(reader, tensor, element++, reader->pending, 1, problem)) return false;
  }
  const size_t whole = count / size;
  if (!deliver(reader, tensor, element, bytes, whole, problem)) return false;
  gather(reader, bytes + whole * size, count - whole * size, size);
  return true;
}

static bool feed_data(struct tensors_reader *reader, const char *bytes, size_t count,
                      struct problem *problem) {
  while (count > 0) {
    if (reader->at == reader->table.count)
      return problem_set(problem, PROBLEM_INVALID_TENSORS, "",
                         "expected %zu bytes behind the header, got more",
                         reader->table.data_bytes);
    const struct tensor *tensor = &reader->table.tensors[reader->at];
    const size_t left = tensor->end - reader->position, taken = count < left ? count : left;
    if (!feed_tensor(reader, tensor, bytes, taken, problem)) return false;
    reader->position += taken;
    bytes += taken;
    count -= taken;
    if (reader->position == tensor->end) reader->at++;
  }
  return true;
}

static bool feed(struct tensors_reader *reader, const char *bytes, size_t count,
                 struct problem *problem) {
  if (reader->place == IN_LENGTH && count > 0) {
    const size_t taken = gather(reader, bytes, count, LENGTH_BYTES);
    bytes += taken;
    count -= taken;
    if (reader->pending_count == LENGTH_BYTES && !read_length(reader, problem)) return false;
  }
  if (reader->place == IN_HEADER && count > 0) {
    const size_t missing = reader->header_length - reader->header.length;
    const size_t taken = count < missing ? count : missing;
    if (!feed_header(reader, bytes, taken, problem)) return false;
    bytes += taken;
    count -= taken;
  }
  return count == 0 || feed_data(reader, bytes, count, problem);
}

bool tensors_feed(struct tensors_reader *reader, const char *bytes, size_t count,
                  struct problem *problem) {
  if (reader->place == FAILED)
    return problem_set(problem, PROBLEM_INVALID_TENSORS, "", "the tensors were refused before");
  if (feed(reader, bytes, count, problem)) return true;
  reader->place = FAILED;
  return false;
}

bool tensors_finish(struct tensors_reader *reader, struct problem *problem) {
  switch (reader->place) {
  case IN_LENGTH:
    return problem_set(problem, PROBLEM_INVALID_TENSORS, "",
                       "expected 8 bytes that tell how long the header is, got %zu",
                       reader->pending_count);
  case IN_HEADER:
    return problem_set(problem, PROBLEM_INVALID_TENSORS, "",
                       "expected a header of %zu bytes, got %zu", reader->header_length,
                       reader->header.length);
  case IN_DATA:
    return reader->position == reader->table.data_bytes ||
           problem_set(problem, PROBLEM_INVALID_TENSORS, "",
                       "expected %zu bytes behind the header, got %zu", reader->table.data_bytes,
                       reader->position);
  case FAILED:
    break;
  }
  return problem_set(problem, PROBLEM_INVALID_TENSORS, "", "the tensors were refused before");
}
