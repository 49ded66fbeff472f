/* Any bytes as safetensors. The first byte chooses as what body, and how it is
 * cut: the next one is the length of the pieces. What must be true:
 *
 *  - a file is taken or refused with the same words, however it is cut, whole or
 *    with its rows going to a sink;
 *  - the header of what is taken is JSON to jansson too, and its offsets are what
 *    jansson's tree has: no byte of the data is left out or read twice;
 *  - where the length is told in advance (every other length of pieces), what a sink is
 *    opened with is no more than the file has bytes for;
 *  - what is taken has finite numbers, as many as shapes say, and F32 ones are
 *    the bytes of the file;
 *  - what is taken, written again by our own writer, reads as the same. */
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "codec/tensor_body.h"
#include "fuzz.h"

/* ---- The file by jansson ---- */

static json_t *load_header(const char *bytes, size_t count, size_t *start) {
  uint64_t length = 0;
  json_error_t error;
  REQUIRE(count >= 8);
  for (size_t i = 8; i-- > 0;)
    length = length << 8 | (unsigned char)bytes[i];
  REQUIRE(length <= count - 8);
  *start = 8 + (size_t)length;
  return json_loadb(bytes + 8, (size_t)length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
}

static size_t offset_of(const json_t *tensor, size_t index) {
  return (size_t)json_integer_value(json_array_get(json_object_get(tensor, "data_offsets"), index));
}

/* The matrix against the bytes it comes from; NULL data were sent to a sink. */
static void check_matrix(const struct matrix *matrix, const char *name, const json_t *header,
                         const char *data) {
  const json_t *tensor = json_object_get(header, name);
  if (!tensor) {
    REQUIRE(matrix->rows == 0 && !matrix->data);
    return;
  }
  const json_t *shape = json_object_get(tensor, "shape");
  const size_t count = matrix->rows * matrix->cols, begin = offset_of(tensor, 0);
  REQUIRE((json_int_t)matrix->rows == json_integer_value(json_array_get(shape, 0)));
  REQUIRE((json_int_t)matrix->cols == json_integer_value(json_array_get(shape, 1)));
  for (size_t i = 0; i < count; i++)
    REQUIRE(isfinite(matrix->data[i]));
  if (count > 0 && strcmp(json_string_value(json_object_get(tensor, "dtype")), "F32") == 0)
    REQUIRE(memcmp(matrix->data, data + begin, count * sizeof(float)) == 0);
}

static void check_offsets(const json_t *header, size_t data_bytes) {
  const char *name;
  json_t *tensor;
  size_t sum = 0;
  json_object_foreach((json_t *)header, name, tensor) {
    if (strcmp(name, "__metadata__") == 0) continue;
    sum += offset_of(tensor, 1) - offset_of(tensor, 0);
    REQUIRE(offset_of(tensor, 1) <= data_bytes);
  }
  REQUIRE(sum == data_bytes);
}

/* ---- Written again ---- */

static void check_writing(const struct matrix *queries) {
  const struct tensor_outline tensor = {"queries", 2, {queries->rows, queries->cols}};
  const struct tensors_note note = {TENSORS_REQUEST, "{}", 2};
  const struct tensors_outline outline = {&tensor, 1, &note, 1};
  const size_t bytes = queries->rows * queries->cols * sizeof(float);
  struct attend_body body;
  struct problem problem;
  struct buffer file;
  size_t data_bytes;
  buffer_init(&file, 0);
  REQUIRE(tensors_write_header(&file, &outline, &data_bytes) && data_bytes == bytes);
  REQUIRE(buffer_append(&file, queries->data, bytes));
  REQUIRE(tensor_body_parse_attend(ATTEND_STORED, file.data, file.length, &body, &problem));
  REQUIRE(body.queries.rows == queries->rows && body.queries.cols == queries->cols);
  REQUIRE(memcmp(body.queries.data, queries->data, bytes) == 0);
  attend_body_free(&body);
  buffer_free(&file);
}

/* ---- Rows to a sink ---- */

struct rows {
  size_t rows, key_dim, value_dim, key_rows, value_rows;
  size_t told; /* bytes that the file was said to have; 0: nothing */
  bool opened;
};

static bool open_rows(void *context, size_t rows, size_t key_dim, size_t value_dim,
                      attn_dtype dtype, struct problem *problem) {
  struct rows *seen = context;
  (void)problem;
  REQUIRE(!seen->opened && attn_dtype_info_at(dtype));
  seen->opened = true;
  seen->rows = rows;
  seen->key_dim = key_dim;
  seen->value_dim = value_dim;
  if (seen->told > 0) REQUIRE(rows <= seen->told / 2 / (key_dim + value_dim));
  return true;
}

static bool see_keys(void *context, size_t first_row, size_t rows, const float *numbers,
                     struct problem *problem) {
  struct rows *seen = context;
  (void)problem;
  REQUIRE(seen->opened && first_row == seen->key_rows && rows >= 1);
  REQUIRE((seen->key_rows += rows) <= seen->rows);
  for (size_t i = 0; i < rows * seen->key_dim; i++)
    REQUIRE(isfinite(numbers[i]));
  return true;
}

static bool see_values(void *context, size_t first_row, size_t rows, const float *numbers,
                       struct problem *problem) {
  struct rows *seen = context;
  (void)problem;
  REQUIRE(seen->opened && first_row == seen->value_rows && rows >= 1);
  REQUIRE((seen->value_rows += rows) <= seen->rows);
  for (size_t i = 0; i < rows * seen->value_dim; i++)
    REQUIRE(isfinite(numbers[i]));
  return true;
}

static bool upload(const char *bytes, size_t count, size_t piece, struct rows *seen,
                   struct memory_body *body, struct problem *problem) {
  const struct tensor_rows_sink sink = {open_rows, see_keys, see_values, seen};
  const struct tensor_upload_options options = {
      .kind = BODY_MEMORY, .held_bytes = 1 << 20, .body_bytes = seen->told, .rows = &sink};
  struct tensor_upload *reader = tensor_upload_create(&options);
  REQUIRE(reader != NULL);
  bool read = true;
  for (size_t at = 0; read && at < count; at += piece)
    read = tensor_upload_feed(reader, bytes + at, count - at < piece ? count - at : piece, problem);
  read = read && tensor_upload_finish_memory(reader, body, problem);
  tensor_upload_free(reader);
  return read;
}

/* ---- Bodies ---- */

static void check_refusal(const struct problem *problem) {
  REQUIRE(problem->code != PROBLEM_INTERNAL && problem->code != PROBLEM_INVALID_JSON);
  REQUIRE(problem->detail[0] != '\0');
  REQUIRE(problem->pointer[0] == '\0' || problem->pointer[0] == '/');
}

static void check_file(const char *bytes, size_t count, const struct matrix *keys,
                       const struct matrix *values, const struct matrix *queries) {
  size_t start;
  json_t *header = load_header(bytes, count, &start);
  if (!header) return; /* jansson's own limits: U+0000 in a name of __metadata__ */
  check_offsets(header, count - start);
  check_matrix(keys, "keys", header, bytes + start);
  check_matrix(values, "values", header, bytes + start);
  check_matrix(queries, "queries", header, bytes + start);
  json_decref(header);
}

static void read_memory(const char *bytes, size_t count, size_t piece) {
  struct memory_body body, sent;
  struct problem problem, again;
  struct rows seen = {.told = piece % 2 ? count : 0}, one = seen;
  const struct matrix none = {0};
  const bool read = tensor_body_parse_memory(NULL, bytes, count, &body, &problem);
  const bool cut = upload(bytes, count, piece, &seen, &sent, &again);
  if (cut) {
    REQUIRE(read && sent.keys.rows == body.keys.rows && sent.key_dim == body.key_dim);
    REQUIRE(seen.key_rows == body.keys.rows && seen.value_rows == body.keys.rows);
    REQUIRE(id_list_count(sent.ids) == id_list_count(body.ids) && sent.dtype == body.dtype);
    REQUIRE(attn_score_equal(sent.score, body.score));
    memory_body_free(&sent);
  } else {
    check_refusal(&again);
    struct problem whole;
    REQUIRE(!upload(bytes, count, count + 1, &one, &sent, &whole));
    REQUIRE(whole.code == again.code);
    /* of two names that come twice, either may be the one that is told */
    REQUIRE(strcmp(whole.detail, again.detail) == 0 || strstr(whole.detail, "that name already"));
    REQUIRE(!read || again.code == PROBLEM_BODY_TOO_LARGE);
  }
  if (!read) {
    check_refusal(&problem);
    return;
  }
  check_file(bytes, count, &body.keys, &body.values, &none);
  REQUIRE(attn_score_query_dim(body.score, body.key_dim) >= 1 && body.normalization);
  memory_body_free(&body);
}

static void read_rows(const char *bytes, size_t count) {
  struct rows_body body;
  struct problem problem;
  const struct matrix none = {0};
  if (!tensor_body_parse_rows(bytes, count, &body, &problem)) {
    check_refusal(&problem);
    return;
  }
  check_file(bytes, count, &body.keys, &body.values, &none);
  REQUIRE(body.keys.rows >= 1 && body.keys.rows == body.values.rows);
  rows_body_free(&body);
}

static void read_attend(enum attend_kind kind, const char *bytes, size_t count) {
  struct attend_body body;
  struct problem problem;
  if (!tensor_body_parse_attend(kind, bytes, count, &body, &problem)) {
    check_refusal(&problem);
    return;
  }
  check_file(bytes, count, &body.keys, &body.values, &body.queries);
  REQUIRE(body.queries.rows >= 1 && (kind == ATTEND_AD_HOC) == (body.keys.rows >= 1));
  check_writing(&body.queries);
  attend_body_free(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2) return 0;
  const char *bytes = (const char *)data + 2;
  const size_t count = size - 2;
  switch (data[0]) {
  case 'm':
    read_memory(bytes, count, (size_t)data[1] + 1);
    break;
  case 'r':
    read_rows(bytes, count);
    break;
  case 'a':
    read_attend(ATTEND_AD_HOC, bytes, count);
    break;
  default:
    read_attend(ATTEND_STORED, bytes, count);
  }
  return 0;
}
