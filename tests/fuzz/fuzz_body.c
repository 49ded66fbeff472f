/* Any bytes as a body. The first byte chooses how it is read; the rest is the
 * text. What must be true:
 *
 *  - scan_check() and jansson, which have nothing in common, agree on what is
 *    JSON (jansson has limits of its own, which are left out);
 *  - a reader calls a text invalid JSON exactly where scan_check() does;
 *  - what a reader takes has the numbers and ids that jansson's tree has;
 *  - matrices that are printed and read again are the same bits. */
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "codec/body.h"
#include "codec/scan.h"
#include "codec/write.h"
#include "fuzz.h"

/* Duplicates are refused by both; \u0000 is allowed by both but in names. */
static json_t *load(const char *text, size_t length, json_error_t *error) {
  return json_loadb(
      text, length,
      JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, error);
}

static void check_verdict(const char *text, size_t length, bool valid,
                          const struct problem *problem) {
  if (!valid) REQUIRE(problem->code == PROBLEM_INVALID_JSON && problem->detail[0] != '\0');
  if (memchr(text, '\0', length)) { /* jansson overlooks one behind a number */
    REQUIRE(!valid);
    return;
  }
  json_error_t error;
  json_t *tree = load(text, length, &error);
  bool loaded = tree != NULL;
  enum json_error_code code = loaded ? json_error_unknown : json_error_code(&error);
  json_decref(tree);
  /* jansson's own limits: numbers within float64, no \u0000 in names. */
  bool limit = code == json_error_numeric_overflow || code == json_error_null_byte_in_key ||
               code == json_error_stack_overflow;
  /* and ours */
  bool deep = !valid && strstr(problem->detail, "nested deeper than");
  if (!limit && !deep) REQUIRE(valid == loaded);
}

static bool about_equal(float value, double expected) {
  float nearest = (float)expected; /* may be one step off, being rounded twice */
  return value == nearest || value == nextafterf(nearest, value);
}

static void check_matrix(const struct matrix *matrix, const json_t *rows) {
  REQUIRE(matrix->rows == json_array_size(rows));
  for (size_t row = 0; row < matrix->rows; row++) {
    const json_t *numbers = json_array_get(rows, row);
    REQUIRE(matrix->cols == json_array_size(numbers));
    for (size_t col = 0; col < matrix->cols; col++)
      REQUIRE(about_equal(matrix->data[row * matrix->cols + col],
                          json_real_value(json_array_get(numbers, col))));
  }
}

static void check_ids(const struct id_list *ids, const json_t *strings) {
  REQUIRE(id_list_count(ids) == json_array_size(strings));
  for (size_t i = 0; i < id_list_count(ids); i++) {
    size_t length;
    const char *id = id_list_get(ids, i, &length);
    const json_t *string = json_array_get(strings, i);
    REQUIRE(length == json_string_length(string) &&
            memcmp(id, json_string_value(string), length) == 0);
  }
}

/* Printed, and read again. */
static void check_printing(const struct matrix *matrix) {
  struct buffer text;
  struct json_writer writer;
  struct attend_body body;
  struct problem problem;
  buffer_init(&text, 0);
  json_begin(&writer, &text);
  json_open_object(&writer);
  json_name(&writer, "queries");
  json_matrix(&writer, matrix->data, matrix->rows, matrix->cols);
  json_close_object(&writer);
  REQUIRE(text.status == BUFFER_OK);
  REQUIRE(body_parse_attend(ATTEND_STORED, text.data, text.length, &body, &problem));
  REQUIRE(body.queries.rows == matrix->rows && body.queries.cols == matrix->cols);
  REQUIRE(memcmp(body.queries.data, matrix->data,
                 matrix->rows * matrix->cols * sizeof *matrix->data) == 0);
  attend_body_free(&body);
  buffer_free(&text);
}

static void check_refusal(const struct problem *problem, bool valid) {
  REQUIRE(problem->code != PROBLEM_INTERNAL);
  REQUIRE((problem->code == PROBLEM_INVALID_JSON) == !valid);
  REQUIRE(problem->detail[0] != '\0');
  REQUIRE(problem->pointer[0] == '\0' || problem->pointer[0] == '/');
}

static void read_memory(const char *text, size_t length, bool valid) {
  struct memory_body body;
  struct problem problem;
  if (!body_parse_memory(text, length, &body, &problem)) {
    check_refusal(&problem, valid);
    return;
  }
  REQUIRE(valid);
  json_error_t error;
  json_t *tree = load(text, length, &error);
  REQUIRE(tree != NULL);
  check_matrix(&body.keys, json_object_get(tree, "keys"));
  check_matrix(&body.values, json_object_get(tree, "values"));
  check_ids(body.ids, json_object_get(tree, "ids"));
  json_decref(tree);
  REQUIRE(body.keys.rows == body.values.rows);
  REQUIRE(!body.ids || id_list_count(body.ids) == body.keys.rows);
  REQUIRE(body.key_dim >= 1 && body.value_dim >= 1);
  REQUIRE(attn_score_query_dim(body.score, body.key_dim) >= 1 && body.normalization);
  if (body.keys.rows > 0) check_printing(&body.keys);
  memory_body_free(&body);
}

static void read_attend(enum attend_kind kind, const char *text, size_t length, bool valid) {
  struct attend_body body;
  struct problem problem;
  if (!body_parse_attend(kind, text, length, &body, &problem)) {
    check_refusal(&problem, valid);
    return;
  }
  REQUIRE(valid);
  json_error_t error;
  json_t *tree = load(text, length, &error);
  REQUIRE(tree != NULL);
  check_matrix(&body.queries, json_object_get(tree, "queries"));
  check_matrix(&body.keys, json_object_get(tree, "keys"));
  check_matrix(&body.values, json_object_get(tree, "values"));
  json_decref(tree);
  REQUIRE(body.queries.rows >= 1 && (kind == ATTEND_AD_HOC) == (body.keys.rows >= 1));
  REQUIRE((body.weights == ATTN_WEIGHTS_TOP) == (body.top >= 1));
  check_printing(&body.queries);
  attend_body_free(&body);
}

static void read_rows(const char *text, size_t length, bool valid) {
  struct rows_body body;
  struct problem problem;
  if (!body_parse_rows(text, length, &body, &problem)) {
    check_refusal(&problem, valid);
    return;
  }
  REQUIRE(valid);
  json_error_t error;
  json_t *tree = load(text, length, &error);
  REQUIRE(tree != NULL);
  check_matrix(&body.keys, json_object_get(tree, "keys"));
  check_matrix(&body.values, json_object_get(tree, "values"));
  check_ids(body.ids, json_object_get(tree, "ids"));
  REQUIRE(body.has_ttl == (json_object_get(tree, "ttl_seconds") != NULL));
  json_decref(tree);
  REQUIRE(body.keys.rows >= 1 && body.keys.rows == body.values.rows);
  REQUIRE(!body.ids || id_list_count(body.ids) == body.keys.rows);
  REQUIRE(body.ttl_seconds >= 0 && isfinite(body.ttl_seconds));
  check_printing(&body.keys);
  rows_body_free(&body);
}

static void read_removal(const char *text, size_t length, bool valid) {
  struct id_list *ids;
  struct problem problem;
  if (!body_parse_removal(text, length, &ids, &problem)) {
    check_refusal(&problem, valid);
    return;
  }
  REQUIRE(valid);
  json_error_t error;
  json_t *tree = load(text, length, &error);
  REQUIRE(tree != NULL);
  check_ids(ids, json_object_get(tree, "ids"));
  json_decref(tree);
  REQUIRE(id_list_count(ids) >= 1 && id_list_find_duplicate(ids) == SIZE_MAX);
  id_list_free(ids);
}

static void read_settings(const char *text, size_t length, bool valid) {
  struct settings_body body;
  struct problem problem;
  if (!body_parse_settings(text, length, &body, &problem)) {
    check_refusal(&problem, valid);
    return;
  }
  REQUIRE(valid);
  json_error_t error;
  json_t *tree = load(text, length, &error);
  REQUIRE(tree != NULL);
  REQUIRE((body.score != NULL) == (json_object_get(tree, "score") != NULL));
  REQUIRE((body.normalization != NULL) == (json_object_get(tree, "normalization") != NULL));
  REQUIRE(body.has_ttl == (json_object_get(tree, "ttl_seconds") != NULL));
  json_decref(tree);
  REQUIRE(body.ttl_seconds >= 0 && isfinite(body.ttl_seconds));
  settings_body_free(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  const char *text = (const char *)data + 1;
  size_t length = size - 1;
  struct problem problem;
  bool valid = scan_check(text, length, &problem);
  check_verdict(text, length, valid, &problem);
  switch (data[0]) {
  case 'm':
    read_memory(text, length, valid);
    break;
  case 'r':
    read_rows(text, length, valid);
    break;
  case 'd':
    read_removal(text, length, valid);
    break;
  case 'p':
    read_settings(text, length, valid);
    break;
  case 'a':
    read_attend(ATTEND_AD_HOC, text, length, valid);
    break;
  default:
    read_attend(ATTEND_STORED, text, length, valid);
  }
  return 0;
}
