/* The header names tensors and tells where each one's bytes are: an index into
 * memory written by somebody else. So everything in it is checked before any of
 * it is used: first that it is JSON at all (with no name twice), then tensor by
 * tensor its shape against its bytes, then that all together lie end to end.
 *
 * The last rule is the format's own and does much: no byte is read as two
 * things, none is left over to hide something in, and a reader by push needs to
 * look at one tensor at a time only. */
#include "codec/safetensors_header.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "codec/scan.h"

#define METADATA "__metadata__"

/* All there are; those with a kind can be delivered. */
static const struct dtype {
  const char *name;
  size_t bits;
  enum floats_kind kind;
} dtypes[] = {{"F32", 32, FLOATS_F32},     {"F64", 64, FLOATS_F64},     {"F16", 16, FLOATS_F16},
              {"BF16", 16, FLOATS_BF16},   {"BOOL", 8, FLOATS_NONE},    {"U8", 8, FLOATS_NONE},
              {"I8", 8, FLOATS_NONE},      {"U16", 16, FLOATS_NONE},    {"I16", 16, FLOATS_NONE},
              {"U32", 32, FLOATS_NONE},    {"I32", 32, FLOATS_NONE},    {"U64", 64, FLOATS_NONE},
              {"I64", 64, FLOATS_NONE},    {"C64", 64, FLOATS_NONE},    {"F8_E4M3", 8, FLOATS_NONE},
              {"F8_E5M2", 8, FLOATS_NONE}, {"F8_E8M0", 8, FLOATS_NONE}, {"F6_E2M3", 6, FLOATS_NONE},
              {"F6_E3M2", 6, FLOATS_NONE}, {"F4", 4, FLOATS_NONE}};

/* A draft of the table while it is read. */
struct reading {
  struct scan scan;
  struct tensor_table *table;
  size_t capacity;
};

/* ---- Members of a tensor ---- */

/* A size is written in digits alone: 4.0 and 4e0 are numbers, but not sizes. */
static bool read_size(struct scan *scan, size_t *size) {
  const char *start;
  size_t length;
  if (scan_kind(scan) != SCAN_NUMBER) return scan_wrong_type(scan, "a whole number");
  if (!scan_skip(scan, &start, &length)) return false;
  *size = 0;
  for (size_t i = 0; i < length; i++) {
    size_t digit = (size_t)(unsigned char)start[i] - '0';
    if (digit > 9 || __builtin_mul_overflow(*size, (size_t)10, size) ||
        __builtin_add_overflow(*size, digit, size))
      return scan_fault(scan, PROBLEM_INVALID_TENSORS,
                        "expected a whole number that fits in 64 bits, got %.*s",
                        length < 64 ? (int)length : 64, start);
  }
  return true;
}

/* Up to `most` sizes; how many there are goes to *count. */
static bool read_sizes(struct scan *scan, size_t *sizes, size_t most, size_t *count) {
  int more;
  *count = 0;
  if (!scan_open(scan, '[')) return false;
  while ((more = scan_element(scan, *count)) > 0) {
    if (*count == most)
      return scan_fault(scan, PROBLEM_INVALID_TENSORS, "expected up to %zu numbers, got more",
                        most);
    size_t outer = scan_enter_index(scan, *count);
    if (!read_size(scan, &sizes[*count])) return false;
    scan_leave(scan, outer);
    ++*count;
  }
  return more == SCAN_CLOSED;
}

static bool read_shape(struct scan *scan, void *to) {
  struct tensor *tensor = to;
  return read_sizes(scan, tensor->shape, TENSOR_DIMS_MAX, &tensor->dims);
}

static bool read_offsets(struct scan *scan, void *to) {
  struct tensor *tensor = to;
  size_t offsets[2], count;
  if (!read_sizes(scan, offsets, 2, &count)) return false;
  if (count != 2 || offsets[0] > offsets[1])
    return scan_fault(scan, PROBLEM_INVALID_TENSORS,
                      "expected [begin, end], the end not before the begin");
  tensor->begin = offsets[0];
  tensor->end = offsets[1];
  return true;
}

static const struct dtype *find_dtype(const char *name) {
  for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
    if (strcmp(dtypes[i].name, name) == 0) return &dtypes[i];
  return NULL;
}

static bool read_dtype(struct scan *scan, void *to) {
  struct tensor *tensor = to;
  size_t length;
  if (!scan_string(scan, tensor->dtype, sizeof tensor->dtype - 1, &length)) return false;
  const struct dtype *dtype = find_dtype(tensor->dtype);
  if (!dtype || strlen(dtype->name) != length)
    return scan_fault(scan, PROBLEM_INVALID_TENSORS, "the format has no such dtype");
  tensor->kind = dtype->kind;
  return true;
}

/* ---- Tensors ---- */

/* That the bytes are as many as shape and dtype need. */
static bool check_bytes(struct scan *scan, struct tensor *tensor) {
  size_t bits;
  tensor->count = 1;
  for (size_t i = 0; i < tensor->dims; i++)
    if (__builtin_mul_overflow(tensor->count, tensor->shape[i], &tensor->count))
      return scan_fault(scan, PROBLEM_INVALID_TENSORS, "the shape is beyond what can be addressed");
  if (__builtin_mul_overflow(tensor->count, find_dtype(tensor->dtype)->bits, &bits))
    return scan_fault(scan, PROBLEM_INVALID_TENSORS, "the shape is beyond what can be addressed");
  if (bits % 8 != 0)
    return scan_fault(scan, PROBLEM_INVALID_TENSORS, "its numbers do not end with a whole byte");
  if (tensor->end - tensor->begin == bits / 8) return true;
  return scan_fault(scan, PROBLEM_INVALID_TENSORS,
                    "its shape and dtype need %zu bytes, its offsets have %zu", bits / 8,
                    tensor->end - tensor->begin);
}

static struct tensor *push_tensor(struct reading *reading, const struct scan_object *object) {
  struct tensor_table *table = reading->table;
  struct problem *problem = reading->scan.problem;
  if (table->count == TENSORS_MAX || object->name_length >= sizeof object->name ||
      strlen(object->name) != object->name_length) {
    scan_fault(&reading->scan, PROBLEM_INVALID_TENSORS,
               table->count == TENSORS_MAX
                   ? "there are more than %d tensors"
                   : "the name is longer than 255 bytes or has U+0000 in it",
               TENSORS_MAX);
    return NULL;
  }
  if (table->count == reading->capacity) {
    size_t capacity = reading->capacity ? 2 * reading->capacity : 8;
    struct tensor *tensors = realloc(table->tensors, capacity * sizeof *tensors);
    if (tensors) table->tensors = tensors;
    if (tensors) reading->capacity = capacity;
  }
  char *name = table->count < reading->capacity ? strdup(object->name) : NULL;
  if (!name) {
    problem_set_status(problem, ATTN_NO_MEMORY, "");
    return NULL;
  }
  struct tensor *tensor = &table->tensors[table->count++];
  *tensor = (struct tensor){.name = name};
  return tensor;
}

static bool read_tensor(struct reading *reading, const struct scan_object *outer) {
  static const struct scan_field fields[] = {{"dtype", read_dtype, 0, true},
                                             {"shape", read_shape, 0, true},
                                             {"data_offsets", read_offsets, 0, true}};
  static const struct scan_table table = {"a tensor", fields, 3};
  struct tensor *tensor = push_tensor(reading, outer);
  return tensor && scan_members(&reading->scan, &table, tensor, NULL) &&
         check_bytes(&reading->scan, tensor);
}

static bool check_metadata(struct scan *scan) {
  struct scan_object object = {.table = NULL};
  if (!scan_open(scan, '{')) return false;
  int member;
  while ((member = scan_member(scan, &object)) >= 0)
    if (!scan_string(scan, NULL, 0, NULL)) return false;
  return member == SCAN_CLOSED;
}

static bool read_table(struct reading *reading) {
  struct scan *scan = &reading->scan;
  struct scan_object object = {.table = NULL};
  if (!scan_open(scan, '{')) return false;
  int member;
  while ((member = scan_member(scan, &object)) >= 0)
    if (scan_is_named(&object, METADATA) ? !check_metadata(scan) : !read_tensor(reading, &object))
      return false;
  return member == SCAN_CLOSED;
}

static int compare_places(const void *a, const void *b) {
  const struct tensor *one = a, *other = b;
  if (one->begin != other->begin) return one->begin < other->begin ? -1 : 1;
  return one->end < other->end ? -1 : one->end > other->end;
}

/* End to end, from 0. */
static bool check_places(struct tensor_table *table, struct problem *problem) {
  if (table->count > 0) qsort(table->tensors, table->count, sizeof *table->tensors, compare_places);
  for (size_t i = 0; i < table->count; i++) {
    const struct tensor *tensor = &table->tensors[i];
    if (tensor->begin != table->data_bytes) {
      char pointer[PROBLEM_POINTER_MAX] = "";
      pointer_push_name(pointer, tensor->name, strlen(tensor->name));
      return problem_set(problem, PROBLEM_INVALID_TENSORS, pointer,
                         "its data begin at byte %zu; those of the tensor before end at %zu",
                         tensor->begin, table->data_bytes);
    }
    table->data_bytes = tensor->end;
  }
  return true;
}

/* ---- The header ---- */

static bool check_text(const char *text, size_t length, struct problem *problem) {
  if (length == 0 || text[0] != '{')
    return problem_set(problem, PROBLEM_INVALID_TENSORS, "",
                       "expected a header that begins with '{'");
  while (text[length - 1] == ' ')
    length--;
  if (text[length - 1] != '}')
    return problem_set(problem, PROBLEM_INVALID_TENSORS, "",
                       "expected a header that ends with '}' and perhaps spaces");
  struct problem fault;
  if (scan_check(text, length, &fault)) return true;
  if (fault.code != PROBLEM_INVALID_JSON) {
    *problem = fault;
    return false;
  }
  return problem_set(problem, PROBLEM_INVALID_TENSORS, fault.pointer,
                     "the header is not valid JSON: %s", fault.detail);
}

bool tensor_table_read(const char *text, size_t length, struct tensor_table *table,
                       struct problem *problem) {
  struct reading reading = {.table = table};
  *table = (struct tensor_table){.tensors = NULL};
  if (!check_text(text, length, problem)) return false;
  scan_begin(&reading.scan, text, length, problem);
  bool read = scan_end(&reading.scan, read_table(&reading)) && check_places(table, problem);
  if (read) return true;
  /* The reader of JSON has words of its own for what is wrong with a body. */
  if (problem->code != PROBLEM_OUT_OF_MEMORY && problem->code != PROBLEM_INTERNAL)
    problem->code = PROBLEM_INVALID_TENSORS;
  tensor_table_free(table);
  return false;
}

void tensor_table_free(struct tensor_table *table) {
  for (size_t i = 0; i < table->count; i++)
    free(table->tensors[i].name);
  free(table->tensors);
  *table = (struct tensor_table){.tensors = NULL};
}

bool tensor_header_metadata(const char *text, size_t length, const char *name,
                            struct buffer *metadata) {
  struct problem unused;
  struct scan scan;
  scan_begin(&scan, text, length, &unused);
  if (scan_find(&scan, METADATA) < 0 || scan_find(&scan, name) < 0) return false;
  struct scan probe = scan;
  size_t needed;
  if (!scan_string(&probe, NULL, 0, &needed)) return false;
  char *room = buffer_reserve(metadata, needed);
  if (!room) return true;
  scan_string(&scan, room, needed, NULL);
  metadata->length += needed;
  return true;
}
