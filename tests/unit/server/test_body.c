/* Bodies of requests: what is read from good ones, and for each fault its code
 * and its place. */
#include <math.h>

#include "codec/body.h"
#include "codec/scan.h"
#include "unit.h"

/* ---- Helpers ---- */

static void check_problem(const struct problem *problem, const char *text, const char *code,
                          const char *pointer) {
  const char *got = problem_info(problem->code)->code;
  if (strcmp(got, code) != 0 || strcmp(problem->pointer, pointer) != 0 || !problem->detail[0])
    ck_abort_msg("%.300s: expected %s at \"%s\", got %s at \"%s\": %s", text, code, pointer, got,
                 problem->pointer, problem->detail);
}

static void check_detail(const struct problem *problem, const char *part) {
  if (!strstr(problem->detail, part)) ck_abort_msg("\"%s\" is not in: %s", part, problem->detail);
}

static void refuse_memory_bytes(const char *text, size_t length, const char *code,
                                const char *pointer, const char *detail) {
  /* Without a NUL behind, so that a sanitizer sees a look past the end. */
  char *copy = malloc(length ? length : 1);
  ck_assert_ptr_nonnull(copy);
  memcpy(copy, text, length);
  struct memory_body body;
  struct problem problem;
  if (body_parse_memory(copy, length, &body, &problem)) ck_abort_msg("taken: %.300s", text);
  check_problem(&problem, text, code, pointer);
  if (detail) check_detail(&problem, detail);
  memory_body_free(&body);
  free(copy);
}

static void refuse_memory(const char *text, const char *code, const char *pointer,
                          const char *detail) {
  refuse_memory_bytes(text, strlen(text), code, pointer, detail);
}

static void refuse_attend(enum attend_kind kind, const char *text, const char *code,
                          const char *pointer, const char *detail) {
  struct attend_body body;
  struct problem problem;
  if (body_parse_attend(kind, text, strlen(text), &body, &problem))
    ck_abort_msg("taken: %.300s", text);
  check_problem(&problem, text, code, pointer);
  if (detail) check_detail(&problem, detail);
  attend_body_free(&body);
}

static struct memory_body take_memory(const char *text) {
  struct memory_body body;
  struct problem problem;
  if (!body_parse_memory(text, strlen(text), &body, &problem))
    ck_abort_msg("%.300s: %s at \"%s\": %s", text, problem_info(problem.code)->code,
                 problem.pointer, problem.detail);
  return body;
}

static struct attend_body take_attend(enum attend_kind kind, const char *text) {
  struct attend_body body;
  struct problem problem;
  if (!body_parse_attend(kind, text, strlen(text), &body, &problem))
    ck_abort_msg("%.300s: %s at \"%s\": %s", text, problem_info(problem.code)->code,
                 problem.pointer, problem.detail);
  return body;
}

static void check_matrix(const struct matrix *matrix, size_t rows, size_t cols,
                         const float *expected) {
  ck_assert_uint_eq(matrix->rows, rows);
  ck_assert_uint_eq(matrix->cols, cols);
  for (size_t i = 0; i < rows * cols; i++)
    ck_assert(memcmp(&matrix->data[i], &expected[i], sizeof *expected) == 0);
}

#define KV "\"keys\":[[1,2]],\"values\":[[3]]"

/* ---- Memories ---- */

START_TEST(test_memory_with_rows) {
  struct memory_body body = take_memory(
      " { \"keys\" : [ [ 1 , 2.5 , -0 ] ,\t[ 0.1e1,\r\n3e-1, 1E2 ] ],\"values\":[[1],[-1]] } \n");
  check_matrix(&body.keys, 2, 3, (const float[]){1, 2.5f, -0.0f, 1, 0.3f, 100});
  check_matrix(&body.values, 2, 1, (const float[]){1, -1});
  ck_assert_uint_eq(body.key_dim, 3);
  ck_assert_uint_eq(body.value_dim, 1);
  ck_assert_ptr_null(body.ids);
  ck_assert_str_eq(attn_score_get_info(body.score)->name, "scaled_dot");
  ck_assert_str_eq(attn_normalization_get_info(body.normalization)->name, "softmax");
  memory_body_free(&body);
  memory_body_free(&body);
}
END_TEST

START_TEST(test_memory_with_dimensions) {
  struct memory_body body =
      take_memory("{\"value_dim\":8,\"key_dim\":1048576,\"score\":\"gaussian\"}");
  ck_assert_uint_eq(body.keys.rows + body.values.rows, 0);
  ck_assert_ptr_null(body.keys.data);
  ck_assert_uint_eq(body.key_dim, 1048576);
  ck_assert_uint_eq(body.value_dim, 8);
  ck_assert_str_eq(attn_normalization_get_info(body.normalization)->name, "sum");
  memory_body_free(&body);
  body = take_memory("{\"key_dim\":6.4e1,\"value_dim\":1.0,\"ids\":[],\"dtype\":\"f32\"}");
  ck_assert_uint_eq(body.key_dim, 64);
  memory_body_free(&body);
}
END_TEST

START_TEST(test_memory_ids) {
  struct memory_body body = take_memory(
      "{\"ids\":[\"a\",\"\\u00e4\\ud83d\\ude00\\n\\/\",\"\xc3\xa4 \"],\"keys\":[[1],[2],[3]],"
      "\"values\":[[1],[2],[3]]}");
  size_t length;
  ck_assert_uint_eq(id_list_count(body.ids), 3);
  ck_assert_str_eq(id_list_get(body.ids, 0, &length), "a");
  ck_assert_str_eq(id_list_get(body.ids, 1, &length), "\xc3\xa4\xf0\x9f\x98\x80\n/");
  ck_assert_uint_eq(length, 8);
  ck_assert_str_eq(id_list_get(body.ids, 2, &length), "\xc3\xa4 ");
  memory_body_free(&body);
}
END_TEST

START_TEST(test_memory_members) {
  refuse_memory("{}", "missing_member", "/keys", "a memory needs \"keys\"");
  refuse_memory("{\"values\":[[1]]}", "missing_member", "/keys", NULL);
  refuse_memory("{\"keys\":[[1]]}", "missing_member", "/values", NULL);
  refuse_memory("{\"key_dim\":1}", "missing_member", "/value_dim", NULL);
  refuse_memory("{\"value_dim\":1}", "missing_member", "/key_dim", NULL);
  refuse_memory("{" KV ",\"kyes\":1}", "unknown_member", "/kyes",
                "a memory takes \"keys\", \"values\", \"key_dim\", \"value_dim\", \"ids\", "
                "\"score\", \"normalization\", \"dtype\", \"ttl_seconds\", not \"kyes\"");
  refuse_memory("{" KV ",\"queries\":[[1]]}", "unknown_member", "/queries", NULL);
  refuse_memory("{\"Keys\":[[1]]}", "unknown_member", "/Keys", NULL);
  refuse_memory("{\"\":1}", "unknown_member", "/", NULL);
  refuse_memory("{\"a/b~c\":1}", "unknown_member", "/a~1b~0c", NULL);
  refuse_memory("{\"keys\\u0000\":[[1]]}", "unknown_member", "/keys\xef\xbf\xbd", NULL);
  refuse_memory("{" KV ",\"key_dim\":2}", "invalid_parameter", "/key_dim", NULL);
  refuse_memory("{\"value_dim\":2," KV "}", "invalid_parameter", "/value_dim", NULL);
  refuse_memory("{\"value_dim\":2,\"keys\":[[1]]}", "invalid_parameter", "/value_dim", NULL);
}
END_TEST

START_TEST(test_memory_dimensions) {
  static const char *const bad[] = {"0", "-1", "1.5", "1048577", "1e300", "-0"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    char text[80];
    snprintf(text, sizeof text, "{\"key_dim\":%s,\"value_dim\":1}", bad[i]);
    refuse_memory(text, "invalid_parameter", "/key_dim",
                  "expected a whole number from 1 to 1048576");
    snprintf(text, sizeof text, "{\"key_dim\":1,\"value_dim\":%s}", bad[i]);
    refuse_memory(text, "invalid_parameter", "/value_dim", NULL);
  }
  refuse_memory("{\"key_dim\":\"4\",\"value_dim\":1}", "invalid_type", "/key_dim",
                "expected a number, got a string");
  refuse_memory("{\"key_dim\":1e400,\"value_dim\":1}", "invalid_number", "/key_dim", "1e400");
}
END_TEST

START_TEST(test_memory_id_faults) {
  refuse_memory("{" KV ",\"ids\":\"a\"}", "invalid_type", "/ids", "an array of strings");
  refuse_memory("{" KV ",\"ids\":[1]}", "invalid_type", "/ids/0",
                "expected a string, got a number");
  refuse_memory("{" KV ",\"ids\":[\"a\",null]}", "invalid_type", "/ids/1", "got null");
  refuse_memory("{" KV ",\"ids\":[\"a\",\"b\"]}", "shape_mismatch", "/ids", "1 rows, got 2");
  refuse_memory("{" KV ",\"ids\":[]}", "shape_mismatch", "/ids", NULL);
  refuse_memory("{\"key_dim\":1,\"value_dim\":1,\"ids\":[\"a\"]}", "shape_mismatch", "/ids", NULL);
  refuse_memory("{" KV ",\"ids\":[\"\"]}", "invalid_id", "/ids/0", "1 to 256 bytes, got 0");
  refuse_memory("{" KV ",\"ids\":[\"a\\u0000\"]}", "invalid_id", "/ids/0", NULL);
  refuse_memory("{\"ids\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"\\u0062\"]," KV "}", "duplicate_id",
                "/ids/5", "\"b\"");

  char text[2048];
  char id[300];
  memset(id, 'x', sizeof id);
  snprintf(text, sizeof text, "{" KV ",\"ids\":[\"%.256s\"]}", id);
  struct memory_body body = take_memory(text);
  ck_assert_uint_eq(strlen(id_list_get(body.ids, 0, NULL)), 256);
  memory_body_free(&body);
  snprintf(text, sizeof text, "{" KV ",\"ids\":[\"%.257s\"]}", id);
  refuse_memory(text, "invalid_id", "/ids/0", "got 257");
  /* 256 bytes, but 86 characters and more bytes of text */
  snprintf(text, sizeof text, "{" KV ",\"ids\":[\"%.253s\\u20ac\"]}", id);
  body = take_memory(text);
  memory_body_free(&body);
  snprintf(text, sizeof text, "{" KV ",\"ids\":[\"%.254s\\u20ac\"]}", id);
  refuse_memory(text, "invalid_id", "/ids/0", "got 257");
}
END_TEST

START_TEST(test_memory_dtype) {
  struct memory_body body = take_memory("{" KV "}");
  ck_assert_int_eq(body.dtype, ATTN_F32);
  memory_body_free(&body);
  const attn_dtype_info *info;
  for (size_t i = 0; (info = attn_dtype_info_at(i)); i++) {
    char text[128];
    snprintf(text, sizeof text, "{" KV ",\"dtype\":\"%s\"}", info->name);
    body = take_memory(text);
    ck_assert_int_eq(body.dtype, info->dtype);
    memory_body_free(&body);
    refuse_memory("{" KV ",\"dtype\":\"f64\"}", "invalid_parameter", "/dtype", info->name);
  }
  refuse_memory("{" KV ",\"dtype\":\"f32 \"}", "invalid_parameter", "/dtype", "\"f32 \"");
  refuse_memory("{" KV ",\"dtype\":\"\"}", "invalid_parameter", "/dtype", NULL);
  refuse_memory("{" KV ",\"dtype\":32}", "invalid_type", "/dtype", NULL);
}
END_TEST

START_TEST(test_shapes) {
  refuse_memory("{\"keys\":[[1],[2]],\"values\":[[1]]}", "shape_mismatch", "/values",
                "keys has 2 rows, values has 1");
  refuse_memory("{\"keys\":[[1,2],[1,2,3]],\"values\":[[1],[2]]}", "shape_mismatch", "/keys/1",
                "row 1 has 3 numbers, row 0 has 2");
  refuse_memory("{\"keys\":[[1,2],[]],\"values\":[[1],[2]]}", "shape_mismatch", "/keys/1",
                "row 1 has 0 numbers, row 0 has 2");
  refuse_memory("{\"keys\":[]}", "shape_mismatch", "/keys", "at least one row");
  refuse_memory("{\"keys\":[[]]}", "shape_mismatch", "/keys/0", "at least one number");
  refuse_memory("{\"keys\":[[],[1]]}", "shape_mismatch", "/keys/0", NULL);
  refuse_memory("{\"keys\":[ [ ] ]}", "shape_mismatch", "/keys/0", NULL);
}
END_TEST

/* A row may be as long as the largest dimension and not longer. */
START_TEST(test_longest_row) {
  size_t count = ATTN_MAX_DIM + 1;
  char *text = malloc(2 * count + 64);
  ck_assert_ptr_nonnull(text);
  for (size_t extra = 0; extra < 2; extra++) {
    char *at = stpcpy(text, "{\"values\":[[1]],\"keys\":[[");
    for (size_t i = 0; i < ATTN_MAX_DIM + extra; i++)
      at = stpcpy(at, "1,");
    strcpy(at - 1, "]]}");
    if (extra) {
      refuse_memory(text, "shape_mismatch", "/keys", "1048577 numbers; at most 1048576");
    } else {
      struct memory_body body = take_memory(text);
      ck_assert_uint_eq(body.key_dim, ATTN_MAX_DIM);
      memory_body_free(&body);
    }
  }
  free(text);
}
END_TEST

START_TEST(test_types_in_tensors) {
  static const struct {
    const char *value, *name;
  } cases[] = {{"\"1\"", "a string"},      {"null", "null"},    {"true", "a boolean"},
               {"false", "a boolean"},     {"[1]", "an array"}, {"{}", "an object"},
               {"{\"a\":[]}", "an object"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    char text[128], detail[128];
    snprintf(text, sizeof text, "{\"queries\":[[1,2],[3,%s],[5,6]]}", cases[i].value);
    snprintf(detail, sizeof detail, "expected a number, got %s", cases[i].name);
    refuse_attend(ATTEND_STORED, text, "invalid_type", "/queries/1/1", detail);
  }
  refuse_attend(ATTEND_STORED, "{\"queries\":[1,2]}", "invalid_type", "/queries/0",
                "expected an array of numbers, got a number");
  refuse_attend(ATTEND_STORED, "{\"queries\":[[1],null]}", "invalid_type", "/queries/1", NULL);
  refuse_attend(ATTEND_STORED, "{\"queries\":{}}", "invalid_type", "/queries", "an object");
  refuse_attend(ATTEND_STORED, "{\"queries\":null}", "invalid_type", "/queries", NULL);
  refuse_attend(ATTEND_STORED, "{\"queries\":\"[[1]]\"}", "invalid_type", "/queries", NULL);
  refuse_attend(ATTEND_STORED, "{\"queries\":[[[1]]]}", "invalid_type", "/queries/0/0", NULL);
}
END_TEST

START_TEST(test_numbers_in_tensors) {
  refuse_attend(ATTEND_STORED, "{\"queries\":[[1,2],[1e39,2]]}", "invalid_number", "/queries/1/0",
                "expected a number within float32, got 1e39");
  refuse_attend(ATTEND_STORED, "{\"queries\":[[1,-3.5e38]]}", "invalid_number", "/queries/0/1",
                "-3.5e38");
  struct attend_body body = take_attend(
      ATTEND_STORED, "{\"queries\":[[3.4028235e38,1e-46,-1e-46,1.401298464324817e-45]]}");
  check_matrix(&body.queries, 1, 4, (const float[]){0x1.fffffep127f, 0, -0.0f, 0x1p-149f});
  attend_body_free(&body);
}
END_TEST

/* The pointer of a number far in. */
START_TEST(test_far_pointer) {
  char *text = malloc(1 << 20), *at = stpcpy(text, "{\"queries\":[");
  for (int row = 0; row < 300; row++) {
    at = stpcpy(at, row ? ",[" : "[");
    for (int col = 0; col < 200; col++)
      at += sprintf(at, "%s%s", col ? ", " : "", row == 299 && col == 177 ? "\"x\"" : "0.125");
    at = stpcpy(at, "]");
  }
  strcpy(at, "]}");
  refuse_attend(ATTEND_STORED, text, "invalid_type", "/queries/299/177", NULL);
  free(text);
}
END_TEST

/* ---- Attend ---- */

START_TEST(test_attend) {
  struct attend_body body = take_attend(ATTEND_STORED, "{\"queries\":[[1,2],[3,4]]}");
  check_matrix(&body.queries, 2, 2, (const float[]){1, 2, 3, 4});
  ck_assert_ptr_null(body.score);
  ck_assert_ptr_null(body.normalization);
  ck_assert_int_eq(body.weights, ATTN_WEIGHTS_FULL);
  attend_body_free(&body);
  body = take_attend(ATTEND_STORED, "{\"weights\":\"none\",\"queries\":[[1]],\"score\":\"dot\","
                                    "\"normalization\":\"hardmax\"}");
  ck_assert_int_eq(body.weights, ATTN_WEIGHTS_NONE);
  ck_assert_str_eq(attn_score_get_info(body.score)->name, "dot");
  ck_assert_str_eq(attn_normalization_get_info(body.normalization)->name, "hardmax");
  attend_body_free(&body);
  body = take_attend(ATTEND_STORED, "{\"weights\":\"full\",\"queries\":[[1]]}");
  ck_assert_int_eq(body.weights, ATTN_WEIGHTS_FULL);
  attend_body_free(&body);
  body = take_attend(ATTEND_STORED, "{\"weights\":{\"top\":3},\"queries\":[[1]]}");
  ck_assert_int_eq(body.weights, ATTN_WEIGHTS_TOP);
  ck_assert_uint_eq(body.top, 3);
  attend_body_free(&body);
  attend_body_free(&body);
}
END_TEST

START_TEST(test_attend_weights) {
  static const struct {
    const char *weights, *code, *pointer;
  } cases[] = {
      {"\"all\"", "invalid_parameter", "/weights"},
      {"\"fulll\"", "invalid_parameter", "/weights"},
      {"\"full\\u0000\"", "invalid_parameter", "/weights"},
      {"\"\"", "invalid_parameter", "/weights"},
      {"true", "invalid_type", "/weights"},
      {"3", "invalid_type", "/weights"},
      {"null", "invalid_type", "/weights"},
      {"[\"top\",3]", "invalid_type", "/weights"},
      {"{}", "missing_member", "/weights/top"},
      {"{\"top\":0}", "invalid_parameter", "/weights/top"},
      {"{\"top\":-1}", "invalid_parameter", "/weights/top"},
      {"{\"top\":1.5}", "invalid_parameter", "/weights/top"},
      {"{\"top\":\"3\"}", "invalid_type", "/weights/top"},
      {"{\"top\":null}", "invalid_type", "/weights/top"},
      {"{\"top\":1e999}", "invalid_number", "/weights/top"},
      {"{\"k\":3}", "unknown_member", "/weights/k"},
      {"{\"top\":3,\"k\":3}", "unknown_member", "/weights/k"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    char text[128];
    snprintf(text, sizeof text, "{\"queries\":[[1]],\"weights\":%s}", cases[i].weights);
    refuse_attend(ATTEND_STORED, text, cases[i].code, cases[i].pointer, NULL);
  }
}
END_TEST

START_TEST(test_attend_timeout) {
  struct attend_body body = take_attend(ATTEND_STORED, "{\"queries\":[[1]],\"timeout_ms\":250}");
  ck_assert(body.timeout_ms == 250);
  attend_body_free(&body);
  body = take_attend(ATTEND_STORED, "{\"queries\":[[1]]}");
  ck_assert(body.timeout_ms == 0);
  attend_body_free(&body);
  static const struct {
    const char *timeout, *code;
  } cases[] = {{"0", "invalid_parameter"},   {"-1", "invalid_parameter"},
               {"1.5", "invalid_parameter"}, {"1e30", "invalid_parameter"},
               {"\"1\"", "invalid_type"},    {"null", "invalid_type"},
               {"1e999", "invalid_number"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    char text[128];
    snprintf(text, sizeof text, "{\"queries\":[[1]],\"timeout_ms\":%s}", cases[i].timeout);
    refuse_attend(ATTEND_STORED, text, cases[i].code, "/timeout_ms", NULL);
  }
}
END_TEST

START_TEST(test_attend_members) {
  refuse_attend(ATTEND_STORED, "{}", "missing_member", "/queries", NULL);
  refuse_attend(ATTEND_AD_HOC, "{" KV "}", "missing_member", "/queries", NULL);
  refuse_attend(ATTEND_AD_HOC, "{\"queries\":[[1]]}", "missing_member", "/keys", NULL);
  refuse_attend(ATTEND_AD_HOC, "{\"queries\":[[1]],\"keys\":[[1]]}", "missing_member", "/values",
                NULL);
  refuse_attend(ATTEND_STORED, "{\"queries\":[[1,2]]," KV "}", "unknown_member", "/keys", NULL);
  refuse_attend(ATTEND_AD_HOC, "{\"queries\":[[1]],\"ids\":[]}", "unknown_member", "/ids", NULL);
  refuse_attend(ATTEND_STORED, "{\"queries\":[[1]],\"weigths\":\"none\"}", "unknown_member",
                "/weigths", "\"weights\"");
}
END_TEST

START_TEST(test_ad_hoc) {
  struct attend_body body = take_attend(ATTEND_AD_HOC, "{\"queries\":[[1,2]]," KV "}");
  check_matrix(&body.keys, 1, 2, (const float[]){1, 2});
  check_matrix(&body.values, 1, 1, (const float[]){3});
  attend_body_free(&body);
  refuse_attend(ATTEND_AD_HOC, "{\"queries\":[[1]],\"keys\":[[1]],\"values\":[[1],[2]]}",
                "shape_mismatch", "/values", NULL);
  refuse_attend(ATTEND_AD_HOC, "{\"queries\":[[1]]," KV ",\"score\":\"dot\"}", "shape_mismatch",
                "/queries", "dot and keys of 2 numbers take queries of 2, got 1");
  const char *bilinear =
      "{\"queries\":[[1,2,3]]," KV ",\"score\":{\"type\":\"bilinear\",\"w\":[[1,2],[3,4],[5,6]]}}";
  body = take_attend(ATTEND_AD_HOC, bilinear);
  ck_assert_uint_eq(attn_score_query_dim(body.score, 2), 3);
  attend_body_free(&body);
  refuse_attend(ATTEND_AD_HOC,
                "{\"queries\":[[1,2]]," KV
                ",\"score\":{\"type\":\"bilinear\",\"w\":[[1,2],[3,4],[5,6]]}}",
                "shape_mismatch", "/queries", NULL);
  refuse_attend(ATTEND_AD_HOC,
                "{\"queries\":[[1,2]]," KV ",\"score\":{\"type\":\"bilinear\",\"w\":[[1,2,3]]}}",
                "shape_mismatch", "/score", NULL);
}
END_TEST

/* ---- Scores and normalizations ---- */

START_TEST(test_score_parameters) {
  struct memory_body body =
      take_memory("{" KV ",\"score\":{\"sigma\":2.5e-1,\"type\":\"gaussian\"},"
                  "\"normalization\":{\"type\":\"softmax\",\"temperature\":2,\"top_k\":3}}");
  ck_assert(attn_score_get_argument(body.score, 0, 2).number == 0.25);
  bool found = false;
  for (size_t i = 0; i < attn_normalization_get_info(body.normalization)->param_count; i++) {
    attn_argument argument = attn_normalization_get_argument(body.normalization, i);
    if (strcmp(argument.name, "top_k") == 0) found = argument.number == 3;
  }
  ck_assert(found);
  memory_body_free(&body);
}
END_TEST

START_TEST(test_score_tensors) {
  struct memory_body body =
      take_memory("{" KV ",\"score\":{\"v\":[0.5,-1],\"w_k\":[[1,2],[3,4]],\"type\":\"additive\","
                  "\"w_q\":[[1,2,3],[4,5,6]]}}");
  ck_assert_uint_eq(attn_score_query_dim(body.score, 2), 3);
  const attn_score_info *info = attn_score_get_info(body.score);
  for (size_t i = 0; i < info->param_count; i++) {
    attn_argument argument = attn_score_get_argument(body.score, i, 2);
    if (strcmp(argument.name, "v") == 0) {
      ck_assert_uint_eq(argument.rows, 2);
      ck_assert_uint_eq(argument.cols, 1);
      ck_assert(argument.data[0] == 0.5f && argument.data[1] == -1);
    } else if (strcmp(argument.name, "w_q") == 0) {
      ck_assert_uint_eq(argument.cols, 3);
      ck_assert(argument.data[5] == 6);
    }
  }
  memory_body_free(&body);
}
END_TEST

/* Every score and normalization of the library by its bare name. */
START_TEST(test_every_name) {
  const attn_score_info *score;
  for (size_t i = 0; (score = attn_score_info_at(i)); i++) {
    bool needs = score->param_count > 0 && score->params[0].required;
    char text[128];
    snprintf(text, sizeof text, "{" KV ",\"score\":\"%s\"}", score->name);
    if (needs) {
      char pointer[64];
      snprintf(pointer, sizeof pointer, "/score/%s", score->params[0].name);
      refuse_memory(text, "missing_member", pointer, NULL);
      snprintf(text, sizeof text, "{" KV ",\"score\":{\"type\":\"%s\"}}", score->name);
      refuse_memory(text, "missing_member", pointer, NULL);
    } else {
      struct memory_body body = take_memory(text);
      ck_assert_ptr_eq(attn_score_get_info(body.score), score);
      ck_assert_str_eq(attn_normalization_get_info(body.normalization)->name, score->normalization);
      memory_body_free(&body);
    }
  }
  const attn_normalization_info *normalization;
  for (size_t i = 0; (normalization = attn_normalization_info_at(i)); i++) {
    char text[128];
    snprintf(text, sizeof text, "{" KV ",\"normalization\":{\"type\":\"%s\"}}",
             normalization->name);
    struct memory_body body = take_memory(text);
    ck_assert_ptr_eq(attn_normalization_get_info(body.normalization), normalization);
    memory_body_free(&body);
  }
}
END_TEST

START_TEST(test_spec_faults) {
  static const struct {
    const char *member, *code, *pointer, *detail;
  } cases[] = {
      {"\"score\":\"gauss\"", "unknown_score", "/score", "gaussian, laplacian"},
      {"\"score\":\"\"", "unknown_score", "/score", NULL},
      {"\"score\":\"dot\\u0000\"", "unknown_score", "/score", NULL},
      {"\"score\":{\"type\":\"Dot\"}", "unknown_score", "/score/type", "got \"Dot\""},
      {"\"score\":{}", "missing_member", "/score/type", NULL},
      {"\"score\":{\"sigma\":1}", "missing_member", "/score/type", NULL},
      {"\"score\":{\"type\":1}", "invalid_type", "/score/type", NULL},
      {"\"score\":{\"type\":null}", "invalid_type", "/score/type", NULL},
      {"\"score\":null", "invalid_type", "/score", "expected a string or an object, got null"},
      {"\"score\":[\"dot\"]", "invalid_type", "/score", NULL},
      {"\"score\":{\"type\":\"gaussian\",\"foo\":1}", "unknown_member", "/score/foo",
       "the score gaussian takes \"type\", \"sigma\", not \"foo\""},
      {"\"score\":{\"foo\":{\"type\":\"x\"},\"type\":\"dot\"}", "unknown_member", "/score/foo",
       "the score dot takes \"type\", not \"foo\""},
      {"\"score\":{\"type\":\"gaussian\",\"sigma\":0}", "invalid_parameter", "/score/sigma",
       "sigma must be greater than 0"},
      {"\"score\":{\"type\":\"gaussian\",\"sigma\":-1e300}", "invalid_parameter", "/score/sigma",
       NULL},
      {"\"score\":{\"type\":\"gaussian\",\"sigma\":\"1\"}", "invalid_type", "/score/sigma",
       "expected a number, got a string"},
      {"\"score\":{\"type\":\"gaussian\",\"sigma\":[1]}", "invalid_type", "/score/sigma", NULL},
      {"\"score\":{\"type\":\"gaussian\",\"sigma\":1e309}", "invalid_number", "/score/sigma",
       "1e309"},
      {"\"score\":{\"type\":\"bilinear\",\"w\":[[1,2],[3]]}", "shape_mismatch", "/score/w/1", NULL},
      {"\"score\":{\"type\":\"bilinear\",\"w\":[]}", "shape_mismatch", "/score/w", NULL},
      {"\"score\":{\"type\":\"bilinear\",\"w\":[1,2]}", "invalid_type", "/score/w/0", NULL},
      {"\"score\":{\"type\":\"bilinear\",\"w\":2}", "invalid_type", "/score/w", NULL},
      {"\"score\":{\"w\":[[1,true]],\"type\":\"bilinear\"}", "invalid_type", "/score/w/0/1", NULL},
      {"\"score\":{\"type\":\"bilinear\",\"w\":[[1,2e39]]}", "invalid_number", "/score/w/0/1",
       NULL},
      {"\"score\":{\"type\":\"bilinear\",\"w\":[[1,2,3]]}", "shape_mismatch", "/score",
       "w has rows of 3 numbers, the keys have 2 components"},
      {"\"score\":{\"type\":\"additive\",\"v\":[],\"w_q\":[[1]],\"w_k\":[[1]]}", "shape_mismatch",
       "/score/v", NULL},
      {"\"score\":{\"type\":\"additive\",\"v\":[[1]],\"w_q\":[[1]],\"w_k\":[[1]]}", "invalid_type",
       "/score/v/0", NULL},
      {"\"score\":{\"type\":\"additive\",\"v\":[1],\"w_k\":[[1,2]]}", "missing_member",
       "/score/w_q", NULL},
      {"\"normalization\":\"soft max\"", "unknown_normalization", "/normalization",
       "softmax, sum, none, hardmax, sparsemax, entmax15, sigmoid"},
      {"\"normalization\":{\"type\":\"max\"}", "unknown_normalization", "/normalization/type",
       NULL},
      {"\"normalization\":{}", "missing_member", "/normalization/type", NULL},
      {"\"normalization\":7", "invalid_type", "/normalization", NULL},
      {"\"normalization\":{\"type\":\"softmax\",\"temperature\":0}", "invalid_parameter",
       "/normalization/temperature", NULL},
      {"\"normalization\":{\"type\":\"softmax\",\"top_k\":0}", "invalid_parameter",
       "/normalization/top_k", NULL},
      {"\"normalization\":{\"type\":\"softmax\",\"top_k\":2.5}", "invalid_parameter",
       "/normalization/top_k", NULL},
      {"\"normalization\":{\"type\":\"hardmax\",\"temperature\":1}", "unknown_member",
       "/normalization/temperature", NULL},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    char text[256];
    snprintf(text, sizeof text, "{" KV ",%s}", cases[i].member);
    refuse_memory(text, cases[i].code, cases[i].pointer, cases[i].detail);
    snprintf(text, sizeof text, "{%s," KV "}", cases[i].member);
    refuse_memory(text, cases[i].code, cases[i].pointer, cases[i].detail);
  }
}
END_TEST

START_TEST(test_override) {
  attn_score *score = NULL;
  ck_assert_int_eq(attn_score_create(&score, "laplacian", NULL, 0, NULL), ATTN_OK);
  struct memory_override override = {.score = score};
  const char *text = "{" KV ",\"score\":\"dot\"}";
  struct memory_body body;
  struct problem problem;
  ck_assert(body_parse_memory_as(&override, text, strlen(text), &body, &problem));
  ck_assert(attn_score_equal(body.score, score));
  ck_assert_str_eq(attn_normalization_get_info(body.normalization)->name, "sum");
  memory_body_free(&body);
  text = "{" KV ",\"normalization\":\"hardmax\"}";
  ck_assert(body_parse_memory_as(&override, text, strlen(text), &body, &problem));
  ck_assert_str_eq(attn_normalization_get_info(body.normalization)->name, "hardmax");
  memory_body_free(&body);
  attn_score_free(score);
}
END_TEST

/* ---- Seconds to live ---- */

START_TEST(test_ttl) {
  static const struct {
    const char *text;
    double seconds;
  } good[] = {{"null", 0}, {" null ", 0}, {"0.5", 0.5}, {"1e3", 1000}, {"3155760000", 3155760000}};
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    char text[128];
    snprintf(text, sizeof text, "{" KV ",\"ttl_seconds\":%s}", good[i].text);
    struct memory_body body = take_memory(text);
    ck_assert_double_eq(body.ttl_seconds, good[i].seconds);
    memory_body_free(&body);
  }
  static const struct {
    const char *text, *code;
  } bad[] = {
      {"0", "invalid_parameter"},  {"-1", "invalid_parameter"}, {"3155760001", "invalid_parameter"},
      {"1e999", "invalid_number"}, {"\"1\"", "invalid_type"},   {"true", "invalid_type"},
      {"[]", "invalid_type"},      {"{}", "invalid_type"}};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    char text[128];
    snprintf(text, sizeof text, "{" KV ",\"ttl_seconds\":%s}", bad[i].text);
    refuse_memory(text, bad[i].code, "/ttl_seconds", NULL);
  }
  static const char *const invalid[] = {"nul", "nulll", "null null", "NULL", "n"};
  for (size_t i = 0; i < sizeof invalid / sizeof invalid[0]; i++) {
    char text[128];
    snprintf(text, sizeof text, "{" KV ",\"ttl_seconds\":%s}", invalid[i]);
    refuse_memory(text, "invalid_json", "/ttl_seconds", NULL);
  }
  static const char nul[] = "{" KV ",\"ttl_seconds\":null\0}";
  refuse_memory_bytes(nul, sizeof nul - 1, "invalid_json", "/ttl_seconds", "got the byte 0x00");
}
END_TEST

/* ---- Sizes ---- */

START_TEST(test_big_tensor) {
  enum { ROWS = 700, COLS = 301 };
  char *text = malloc(ROWS * COLS * 16 + 64);
  float *expected = malloc(ROWS * COLS * sizeof *expected);
  ck_assert(text && expected);
  uint64_t state = 5;
  char *at = stpcpy(text, "{\"queries\":[");
  for (size_t row = 0; row < ROWS; row++)
    for (size_t col = 0; col < COLS; col++) {
      float value = (float)((double)(next_random(&state) >> 11) * 0x1p-53 - 0.5);
      expected[row * COLS + col] = value;
      at += sprintf(at, "%s%.9g%s", col ? "," : "[", (double)value,
                    col + 1 < COLS   ? ""
                    : row + 1 < ROWS ? "],"
                                     : "]]}");
    }
  struct attend_body body = take_attend(ATTEND_STORED, text);
  ck_assert_uint_eq(body.queries.rows, ROWS);
  ck_assert_uint_eq(body.queries.cols, COLS);
  ck_assert(memcmp(body.queries.data, expected, ROWS * COLS * sizeof *expected) == 0);
  attend_body_free(&body);
  free(expected);
  free(text);
}
END_TEST

/* The room for numbers doubles, but not past what the text can still hold. */
START_TEST(test_list_growth) {
  struct float_list list = {0};
  size_t bound = 10000;
  while (list.count < bound) {
    if (list.count == list.capacity) {
      size_t before = list.capacity;
      ck_assert(float_list_grow(&list, bound));
      ck_assert_uint_gt(list.capacity, before);
      ck_assert_uint_le(list.capacity, bound);
      ck_assert_uint_le(list.capacity, before == 0 ? 256 : 2 * before);
    }
    list.data[list.count++] = 1;
  }
  ck_assert(!float_list_grow(&list, bound));
  float_list_free(&list);
  ck_assert(float_list_grow(&list, 1));
  ck_assert_uint_eq(list.capacity, 1);
  float_list_free(&list);
}
END_TEST

UNIT_MAIN("body", test_memory_with_rows, test_memory_with_dimensions, test_memory_ids,
          test_memory_members, test_memory_dimensions, test_memory_id_faults, test_memory_dtype,
          test_shapes, test_longest_row, test_types_in_tensors, test_numbers_in_tensors,
          test_far_pointer, test_attend, test_attend_weights, test_attend_timeout,
          test_attend_members, test_ad_hoc, test_score_parameters, test_score_tensors,
          test_every_name, test_spec_faults, test_override, test_ttl, test_big_tensor,
          test_list_growth)
