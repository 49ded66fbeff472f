/* Bodies whose tensors are binary: whole ones, and rows that go to a sink. */
#include <math.h>

#include "../heap.h"
#include "codec/tensor_body.h"
#include "tensor_file.h"

#define F32(name, shape, offsets)                                                                  \
  "\"" name "\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

/* `request` is JSON with ' for "; NULL for none. The numbers are 1, 2, 3, ... */
static struct buffer make_file(const char *tensors, const char *request, size_t count) {
  struct buffer header;
  buffer_init(&header, 0);
  buffer_printf(&header, "{%s", tensors);
  if (request) {
    buffer_printf(&header, "%s\"__metadata__\":{\"format\":\"x\",\"reply\":\"[\",\"request\":\"",
                  tensors[0] ? "," : "");
    for (; *request; request++)
      buffer_puts(&header, *request == '\'' ? "\\\"" : (char[]){*request, '\0'});
    buffer_puts(&header, "\"}");
  }
  buffer_puts(&header, "}");
  struct buffer file = begin_file(buffer_text(&header));
  for (size_t i = 1; i <= count; i++)
    put_f32(&file, (const float[]){(float)i}, 1);
  buffer_free(&header);
  return file;
}

static void check_matrix(const struct matrix *matrix, size_t rows, size_t cols, float first) {
  ck_assert_uint_eq(matrix->rows, rows);
  ck_assert_uint_eq(matrix->cols, cols);
  for (size_t i = 0; i < rows * cols; i++)
    ck_assert_float_eq(matrix->data[i], first + (float)i);
}

/* ---- Whole bodies ---- */

#define KV F32("keys", "[2,3]", "[0,24]") "," F32("values", "[2,1]", "[24,32]")

static struct memory_body take_memory(const char *tensors, const char *request, size_t count) {
  struct buffer file = make_file(tensors, request, count);
  struct memory_body body;
  struct problem problem;
  if (!tensor_body_parse_memory(NULL, file.data, file.length, &body, &problem))
    ck_abort_msg("%s: %s", problem.pointer, problem.detail);
  buffer_free(&file);
  return body;
}

START_TEST(test_memory) {
  struct memory_body body = take_memory(KV, NULL, 8);
  check_matrix(&body.keys, 2, 3, 1);
  check_matrix(&body.values, 2, 1, 7);
  ck_assert_uint_eq(body.key_dim, 3);
  ck_assert_uint_eq(body.value_dim, 1);
  ck_assert_ptr_null(body.ids);
  ck_assert_str_eq(attn_score_get_info(body.score)->name, "scaled_dot");
  memory_body_free(&body);
  body = take_memory(KV,
                     "{'ids':['a','b'],'score':{'type':'gaussian','sigma':2},'dtype':'f16',"
                     "'normalization':'hardmax','ttl_seconds':2.5}",
                     8);
  ck_assert_str_eq(id_list_get(body.ids, 1, NULL), "b");
  ck_assert_str_eq(attn_score_get_info(body.score)->name, "gaussian");
  ck_assert_str_eq(attn_normalization_get_info(body.normalization)->name, "hardmax");
  ck_assert_int_eq(body.dtype, ATTN_F16);
  ck_assert_double_eq(body.ttl_seconds, 2.5);
  memory_body_free(&body);
}
END_TEST

START_TEST(test_empty_memory) {
  struct memory_body body =
      take_memory(F32("keys", "[0,3]", "[0,0]") "," F32("values", "[0,2]", "[0,0]"), NULL, 0);
  ck_assert_uint_eq(body.keys.rows, 0);
  ck_assert_uint_eq(body.key_dim, 3);
  ck_assert_uint_eq(body.value_dim, 2);
  memory_body_free(&body);
  body = take_memory("", "{'key_dim':4,'value_dim':5}", 0);
  ck_assert_uint_eq(body.key_dim, 4);
  ck_assert_uint_eq(body.value_dim, 5);
  memory_body_free(&body);
}
END_TEST

/* Parameters of scores, beside the JSON. */
START_TEST(test_score_tensors) {
  static const char *const requests[] = {"{'score':'bilinear'}", "{'score':{'type':'bilinear'}}"};
  for (size_t i = 0; i < 2; i++) {
    struct memory_body body =
        take_memory(KV "," F32("score.w", "[2,3]", "[32,56]"), requests[i], 14);
    attn_argument w = attn_score_get_argument(body.score, 0, 3);
    ck_assert_str_eq(w.name, "w");
    ck_assert_uint_eq(w.rows, 2);
    ck_assert_uint_eq(w.cols, 3);
    for (size_t n = 0; n < 6; n++)
      ck_assert_float_eq(w.data[n], 9 + (float)n);
    memory_body_free(&body);
  }
  struct memory_body body =
      take_memory(F32("score.v", "[2]", "[0,8]") "," F32("score.w_k", "[2,3]", "[8,32]") "," F32(
                      "keys", "[1,3]", "[32,44]") "," F32("values", "[1,1]", "[44,48]"),
                  "{'score':{'w_q':[[1,2],[3,4]],'type':'additive'}}", 12);
  ck_assert_uint_eq(attn_score_query_dim(body.score, 3), 2);
  ck_assert_float_eq(attn_score_get_argument(body.score, 2, 3).data[1], 2);
  check_matrix(&body.keys, 1, 3, 9);
  memory_body_free(&body);
}
END_TEST

START_TEST(test_attend) {
  struct buffer file = make_file(F32("queries", "[2,2]", "[0,16]"),
                                 "{'weights':{'top':3},'score':'dot','timeout_ms':9}", 4);
  struct attend_body body;
  struct problem problem;
  ck_assert(tensor_body_parse_attend(ATTEND_STORED, file.data, file.length, &body, &problem));
  check_matrix(&body.queries, 2, 2, 1);
  ck_assert_uint_eq(body.top, 3);
  ck_assert_str_eq(attn_score_get_info(body.score)->name, "dot");
  attend_body_free(&body);
  buffer_free(&file);
  file = make_file(F32("values", "[1,1]", "[0,4]") "," F32("queries", "[1,2]", "[4,12]") "," F32(
                       "keys", "[1,2]", "[12,20]"),
                   NULL, 5);
  ck_assert(tensor_body_parse_attend(ATTEND_AD_HOC, file.data, file.length, &body, &problem));
  check_matrix(&body.values, 1, 1, 1);
  check_matrix(&body.queries, 1, 2, 2);
  check_matrix(&body.keys, 1, 2, 4);
  attend_body_free(&body);
  buffer_free(&file);
}
END_TEST

START_TEST(test_rows) {
  struct buffer file = make_file(KV, "{'ids':['x','y'],'ttl_seconds':1}", 8);
  struct rows_body body;
  struct problem problem;
  ck_assert(tensor_body_parse_rows(file.data, file.length, &body, &problem));
  check_matrix(&body.keys, 2, 3, 1);
  check_matrix(&body.values, 2, 1, 7);
  ck_assert_uint_eq(id_list_count(body.ids), 2);
  rows_body_free(&body);
  buffer_free(&file);
}
END_TEST

/* The override has the last word, as with JSON. */
START_TEST(test_override) {
  struct buffer file = make_file(KV, "{'score':'dot'}", 8);
  struct memory_override override = {NULL, NULL};
  struct memory_body body;
  struct problem problem;
  ck_assert_int_eq(attn_score_create(&override.score, "cosine", NULL, 0, NULL), ATTN_OK);
  ck_assert(tensor_body_parse_memory(&override, file.data, file.length, &body, &problem));
  ck_assert_str_eq(attn_score_get_info(body.score)->name, "cosine");
  memory_body_free(&body);
  attn_score_free(override.score);
  buffer_free(&file);
}
END_TEST

/* ---- What is refused, whole and in pieces ---- */

/* Refuses to be opened with more than 100 rows. */
struct rows_seen {
  size_t opened, rows, key_dim, value_dim, key_rows, value_rows;
  attn_dtype dtype;
  float keys[4096], values[4096];
  bool refuse_keys;
};

static bool open_rows(void *context, size_t rows, size_t key_dim, size_t value_dim,
                      attn_dtype dtype, struct problem *problem) {
  struct rows_seen *seen = context;
  seen->opened++;
  seen->rows = rows;
  seen->key_dim = key_dim;
  seen->value_dim = value_dim;
  seen->dtype = dtype;
  return rows <= 100 || problem_set(problem, PROBLEM_BODY_TOO_LARGE, "", "too many rows");
}

static bool see_keys(void *context, size_t first_row, size_t rows, const float *numbers,
                     struct problem *problem) {
  struct rows_seen *seen = context;
  ck_assert_uint_eq(seen->opened, 1);
  ck_assert_uint_eq(first_row, seen->key_rows);
  memcpy(seen->keys + first_row * seen->key_dim, numbers, rows * seen->key_dim * sizeof *numbers);
  seen->key_rows += rows;
  return !seen->refuse_keys || problem_set(problem, PROBLEM_OUT_OF_MEMORY, "/keys", "no room");
}

static bool see_values(void *context, size_t first_row, size_t rows, const float *numbers,
                       struct problem *problem) {
  struct rows_seen *seen = context;
  (void)problem;
  ck_assert_uint_eq(seen->opened, 1);
  ck_assert_uint_eq(first_row, seen->value_rows);
  memcpy(seen->values + first_row * seen->value_dim, numbers,
         rows * seen->value_dim * sizeof *numbers);
  seen->value_rows += rows;
  return true;
}

static struct tensor_upload *upload_with(struct tensor_upload_options options,
                                         const struct buffer *file, size_t piece,
                                         struct rows_seen *seen, bool *fed,
                                         struct problem *problem) {
  const struct tensor_rows_sink sink = {open_rows, see_keys, see_values, seen};
  options.rows = &sink;
  struct tensor_upload *upload = tensor_upload_create(&options);
  ck_assert_ptr_nonnull(upload);
  *fed = true;
  for (size_t at = 0; *fed && at < file->length; at += piece)
    *fed = tensor_upload_feed(upload, file->data + at,
                              file->length - at < piece ? file->length - at : piece, problem);
  return upload;
}

static struct tensor_upload *upload_pieces(enum body_kind kind, const struct buffer *file,
                                           size_t piece, struct rows_seen *seen, bool *fed,
                                           struct problem *problem) {
  const struct tensor_upload_options options = {
      .kind = kind, .header_bytes = 10000, .held_bytes = 1000};
  return upload_with(options, file, piece, seen, fed, problem);
}

static void check_refusal(const struct problem *problem, enum problem_code code,
                          const char *pointer, const char *detail) {
  if (problem->code != code || strcmp(problem->pointer, pointer) != 0 ||
      !strstr(problem->detail, detail))
    ck_abort_msg("%s at %s: %s; expected %s at %s: %s", problem_info(problem->code)->code,
                 problem->pointer, problem->detail, problem_info(code)->code, pointer, detail);
}

/* As a body of a memory: whole, and as an upload. */
static void refuse_memory(const char *tensors, const char *request, size_t count,
                          enum problem_code code, const char *pointer, const char *detail) {
  struct buffer file = make_file(tensors, request, count);
  struct memory_body body;
  struct problem problem;
  ck_assert(!tensor_body_parse_memory(NULL, file.data, file.length, &body, &problem));
  check_refusal(&problem, code, pointer, detail);
  for (size_t piece = 1; piece <= file.length; piece += 1 + piece / 3) {
    struct rows_seen seen = {.opened = 0};
    bool fed;
    struct tensor_upload *upload = upload_pieces(BODY_MEMORY, &file, piece, &seen, &fed, &problem);
    ck_assert(!fed || !tensor_upload_finish_memory(upload, &body, &problem));
    check_refusal(&problem, code, pointer, detail);
    tensor_upload_free(upload);
  }
  buffer_free(&file);
}

START_TEST(test_memory_faults) {
  static const struct {
    const char *tensors, *request;
    size_t count;
    enum problem_code code;
    const char *pointer, *detail;
  } cases[] = {
      {KV, "{", 8, PROBLEM_INVALID_TENSORS, "",
       "\"request\" of __metadata__ is not valid JSON: li"},
      {KV, "", 8, PROBLEM_INVALID_TENSORS, "", "is not valid JSON: "},
      {KV, "[]", 8, PROBLEM_INVALID_TYPE, "", "expected an object, got an array"},
      {KV, "{'keys':[[1,2,3],[4,5,6]]}", 8, PROBLEM_INVALID_TENSORS, "/keys",
       "expected a tensor of that name in place of the JSON"},
      {F32("keys", "[1,1]", "[0,4]"), "{'values':[[1]]}", 1, PROBLEM_INVALID_TENSORS, "/values",
       "expected a tensor"},
      {KV, "{'scoer':'dot'}", 8, PROBLEM_UNKNOWN_MEMBER, "/scoer", "a memory takes \"keys\""},
      {KV, "{'score':'dott'}", 8, PROBLEM_UNKNOWN_SCORE, "/score", "expected one of"},
      {KV, "{'ids':['a']}", 8, PROBLEM_SHAPE_MISMATCH, "/ids", "one id for each of 2 rows, got 1"},
      {KV, "{'ids':['a','a']}", 8, PROBLEM_DUPLICATE_ID, "/ids/1", "there already"},
      {KV, "{'dtype':'f8'}", 8, PROBLEM_INVALID_PARAMETER, "/dtype", "expected one of f32"},
      {KV, "{'key_dim':3,'value_dim':1}", 8, PROBLEM_INVALID_PARAMETER, "/key_dim", "in place of"},
      {F32("keys", "[1,1]", "[0,4]"), NULL, 1, PROBLEM_MISSING_MEMBER, "/values", "needs \"values"},
      {"", NULL, 0, PROBLEM_MISSING_MEMBER, "/keys", "a memory needs \"keys\""},
      {F32("kyes", "[1,1]", "[0,4]"), NULL, 1, PROBLEM_UNKNOWN_MEMBER, "/kyes",
       "a memory takes tensors named \"keys\", \"values\", \"score.PARAMETER\", not \"kyes\""},
      {KV "," F32("queries", "[1,1]", "[32,36]"), NULL, 9, PROBLEM_UNKNOWN_MEMBER, "/queries",
       "takes tensors named"},
      {KV "," F32("ids", "[1,1]", "[32,36]"), NULL, 9, PROBLEM_UNKNOWN_MEMBER, "/ids", "tensors"},
      {KV "," F32("score", "[1,1]", "[32,36]"), NULL, 9, PROBLEM_UNKNOWN_MEMBER, "/score", "takes"},
      {KV "," F32("score.x", "[1,1]", "[32,36]"), NULL, 9, PROBLEM_UNKNOWN_MEMBER, "/score.x", "x"},
      {KV "," F32("score.scale", "[1]", "[32,36]"), NULL, 9, PROBLEM_UNKNOWN_MEMBER, "/score.scale",
       "takes"},
      {KV "," F32("score.w", "[1,3]", "[32,44]"), NULL, 11, PROBLEM_MISSING_MEMBER, "/score",
       "the tensor \"score.w\" needs \"score\" in the JSON"},
      {KV "," F32("score.w", "[1,3]", "[32,44]"), "{'score':'dot'}", 11, PROBLEM_UNKNOWN_MEMBER,
       "/score.w", "dot has no parameter \"w\""},
      {KV "," F32("score.w", "[1,3]", "[32,44]"), "{'score':{'type':'bilinear','w':[[1,2,3]]}}", 11,
       PROBLEM_INVALID_TENSORS, "/score.w", "as a tensor, and in the JSON too"},
      {KV "," F32("score.w", "[3]", "[32,44]"), "{'score':'bilinear'}", 11, PROBLEM_SHAPE_MISMATCH,
       "/score.w", "expected a tensor of 2 dimensions, got 1"},
      {KV "," F32("score.w", "[0,3]", "[32,32]"), "{'score':'bilinear'}", 8, PROBLEM_SHAPE_MISMATCH,
       "/score.w", "expected at least one number"},
      {KV "," F32("score.w", "[1,2]", "[32,40]"), "{'score':'bilinear'}", 10,
       PROBLEM_SHAPE_MISMATCH, "/score", "w has rows of 2 numbers, the keys have 3 components"},
      {KV "," F32("score.w_k", "[2,3]", "[32,56]") "," F32("score.v", "[3]", "[56,68]"),
       "{'score':{'type':'additive','w_q':[[1],[2]]}}", 17, PROBLEM_INVALID_PARAMETER, "/score.v",
       "v"},
      {KV "," F32("score.w_k", "[2,3]", "[32,56]"), "{'score':'additive'}", 14,
       PROBLEM_MISSING_MEMBER, "/score/w_q", "additive needs \"w_q\""},
      {F32("keys", "[2,3]", "[0,24]") "," F32("values", "[3,1]", "[24,36]"), NULL, 9,
       PROBLEM_SHAPE_MISMATCH, "/values", "keys has 2 rows, values has 3"},
      {F32("keys", "[2]", "[0,8]") "," F32("values", "[2,1]", "[8,16]"), NULL, 4,
       PROBLEM_SHAPE_MISMATCH, "/keys", "expected a tensor of 2 dimensions, got 1"},
      {F32("keys", "[2,1,1]", "[0,8]") "," F32("values", "[2,1]", "[8,16]"), NULL, 4,
       PROBLEM_SHAPE_MISMATCH, "/keys", "expected a tensor of 2 dimensions, got 3"},
      {F32("keys", "[]", "[0,4]") "," F32("values", "[1,1]", "[4,8]"), NULL, 2,
       PROBLEM_SHAPE_MISMATCH, "/keys", "expected a tensor of 2 dimensions, got 0"},
      {F32("keys", "[2,0]", "[0,0]") "," F32("values", "[2,1]", "[0,8]"), NULL, 2,
       PROBLEM_SHAPE_MISMATCH, "/keys", "expected at least one number in a row"},
      {F32("keys", "[0,1048577]", "[0,0]") "," F32("values", "[0,1]", "[0,0]"), NULL, 0,
       PROBLEM_SHAPE_MISMATCH, "/keys", "a row has 1048577 numbers; at most 1048576"},
      {F32("keys", "[1,1]", "[0,4]") "," F32("values", "[1,1]", "[4,8]"), NULL, 3,
       PROBLEM_INVALID_TENSORS, "", "expected 8 bytes behind the header, got more"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    refuse_memory(cases[i].tensors, cases[i].request, cases[i].count, cases[i].code,
                  cases[i].pointer, cases[i].detail);
}
END_TEST

START_TEST(test_other_faults) {
  struct attend_body attend;
  struct rows_body rows;
  struct problem problem;
  struct buffer file = make_file(F32("queries", "[0,2]", "[0,0]"), NULL, 0);
  ck_assert(!tensor_body_parse_attend(ATTEND_STORED, file.data, file.length, &attend, &problem));
  check_refusal(&problem, PROBLEM_SHAPE_MISMATCH, "/queries", "expected at least one row");
  buffer_free(&file);
  file = make_file(KV, NULL, 8);
  ck_assert(!tensor_body_parse_attend(ATTEND_STORED, file.data, file.length, &attend, &problem));
  check_refusal(&problem, PROBLEM_UNKNOWN_MEMBER, "/keys", "attending to a stored memory takes");
  ck_assert(!tensor_body_parse_attend(ATTEND_AD_HOC, file.data, file.length, &attend, &problem));
  check_refusal(&problem, PROBLEM_MISSING_MEMBER, "/queries", "needs \"queries\"");
  buffer_free(&file);
  file = make_file(F32("keys", "[0,3]", "[0,0]") "," F32("values", "[0,2]", "[0,0]"), NULL, 0);
  ck_assert(!tensor_body_parse_rows(file.data, file.length, &rows, &problem));
  check_refusal(&problem, PROBLEM_SHAPE_MISMATCH, "/keys", "expected at least one row");
  buffer_free(&file);
  file = make_file(KV "," F32("score.w", "[1,1]", "[32,36]"), NULL, 9);
  ck_assert(!tensor_body_parse_rows(file.data, file.length, &rows, &problem));
  check_refusal(&problem, PROBLEM_UNKNOWN_MEMBER, "/score.w",
                "rows takes tensors named \"keys\", "
                "\"values\", not \"score.w\"");
  buffer_free(&file);
  /* a promise of more than there is gets no room */
  file = make_file(F32("queries", "[4194304,1048576]", "[0,17592186044416]"), NULL, 2);
  ck_assert(!tensor_body_parse_attend(ATTEND_STORED, file.data, file.length, &attend, &problem));
  check_refusal(&problem, PROBLEM_INVALID_TENSORS, "", "the header tells of 17592186044416 bytes");
  buffer_free(&file);
}
END_TEST

/* ---- Uploads ---- */

#define UP F32("values", "[7,2]", "[0,56]") "," F32("keys", "[7,5]", "[56,196]")

START_TEST(test_upload) {
  struct buffer file = make_file(UP, "{'dtype':'bf16','ids':['0','1','2','3','4','5','6']}", 49);
  for (size_t piece = 1; piece <= file.length; piece++) {
    struct rows_seen seen = {.opened = 0};
    struct memory_body body;
    struct problem problem;
    bool fed;
    struct tensor_upload *upload = upload_pieces(BODY_MEMORY, &file, piece, &seen, &fed, &problem);
    ck_assert(fed && tensor_upload_finish_memory(upload, &body, &problem));
    tensor_upload_free(upload);
    ck_assert_uint_eq(seen.rows, 7);
    ck_assert_uint_eq(seen.key_rows, 7);
    ck_assert_uint_eq(seen.value_rows, 7);
    ck_assert_int_eq(seen.dtype, ATTN_BF16);
    for (size_t i = 0; i < 14; i++)
      ck_assert_float_eq(seen.values[i], 1 + (float)i);
    for (size_t i = 0; i < 35; i++)
      ck_assert_float_eq(seen.keys[i], 15 + (float)i);
    ck_assert_ptr_null(body.keys.data);
    ck_assert_uint_eq(body.keys.rows, 7);
    ck_assert_uint_eq(body.keys.cols, 5);
    ck_assert_uint_eq(body.value_dim, 2);
    ck_assert_uint_eq(id_list_count(body.ids), 7);
    memory_body_free(&body);
  }
  buffer_free(&file);
}
END_TEST

/* The score has to wait for its tensor, behind the rows or before them. */
START_TEST(test_upload_with_score) {
  static const char *const tensors[] = {
      UP "," F32("score.w", "[1,5]", "[196,216]"),
      F32("score.w", "[1,5]", "[0,20]") "," F32("values", "[7,2]",
                                                "[20,76]") "," F32("keys", "[7,5]", "[76,216]")};
  for (size_t order = 0; order < 2; order++) {
    struct buffer file = make_file(tensors[order], "{'score':'bilinear','dtype':'int8'}", 54);
    for (size_t piece = 1; piece <= file.length; piece += 3) {
      struct rows_seen seen = {.opened = 0};
      struct memory_body body;
      struct problem problem;
      bool fed;
      struct tensor_upload *upload =
          upload_pieces(BODY_MEMORY, &file, piece, &seen, &fed, &problem);
      ck_assert(fed && tensor_upload_finish_memory(upload, &body, &problem));
      tensor_upload_free(upload);
      ck_assert_int_eq(seen.dtype, ATTN_INT8);
      ck_assert_int_eq(body.dtype, ATTN_INT8);
      ck_assert_uint_eq(seen.key_rows, 7);
      ck_assert_uint_eq(body.keys.rows, 7);
      ck_assert_float_eq(attn_score_get_argument(body.score, 0, 5).data[0], order == 0 ? 50 : 1);
      memory_body_free(&body);
    }
    buffer_free(&file);
  }
}
END_TEST

START_TEST(test_upload_of_rows) {
  struct buffer file = make_file(UP, "{'ids':['0','1','2','3','4','5','6'],'ttl_seconds':3}", 49);
  struct rows_seen seen = {.opened = 0};
  struct rows_body body;
  struct problem problem;
  bool fed;
  struct tensor_upload *upload = upload_pieces(BODY_ROWS, &file, 13, &seen, &fed, &problem);
  ck_assert(fed && tensor_upload_finish_rows(upload, &body, &problem));
  tensor_upload_free(upload);
  ck_assert_uint_eq(seen.key_rows, 7);
  ck_assert_uint_eq(id_list_count(body.ids), 7);
  ck_assert_double_eq(body.ttl_seconds, 3);
  ck_assert_uint_eq(body.values.rows, 7);
  rows_body_free(&body);
  buffer_free(&file);
}
END_TEST

/* Refusals by the sink, and uploads that are given up at any byte. */
START_TEST(test_upload_dropped) {
  struct buffer file = make_file(UP, "{'ids':['0','1','2','3','4','5','6']}", 49);
  struct memory_body body;
  struct problem problem;
  bool fed;
  for (size_t length = 0; length < file.length; length++) {
    struct buffer part = {.data = file.data, .length = length};
    struct rows_seen seen = {.opened = 0};
    struct tensor_upload *upload =
        upload_pieces(BODY_MEMORY, &part, file.length, &seen, &fed, &problem);
    ck_assert(fed);
    if (length % 2) ck_assert(!tensor_upload_finish_memory(upload, &body, &problem));
    tensor_upload_free(upload);
  }
  struct rows_seen seen = {.refuse_keys = true};
  struct tensor_upload *upload = upload_pieces(BODY_MEMORY, &file, 50, &seen, &fed, &problem);
  ck_assert(!fed);
  check_refusal(&problem, PROBLEM_OUT_OF_MEMORY, "/keys", "no room");
  tensor_upload_free(upload);
  buffer_free(&file);
  file = make_file(F32("values", "[101,1]", "[0,404]") "," F32("keys", "[101,1]", "[404,808]"),
                   NULL, 0);
  seen = (struct rows_seen){.opened = 0};
  upload = upload_pieces(BODY_MEMORY, &file, 1000, &seen, &fed, &problem);
  ck_assert(!fed);
  check_refusal(&problem, PROBLEM_BODY_TOO_LARGE, "", "too many rows");
  tensor_upload_free(upload);
  buffer_free(&file);
}
END_TEST

/* What is held here has a limit. */
START_TEST(test_upload_limit) {
  struct buffer file =
      make_file(F32("values", "[1,1]", "[0,4]") "," F32("keys", "[1,1]", "[4,8]") "," F32(
                    "score.w", "[1,251]", "[8,1012]"),
                "{'score':'bilinear'}", 0);
  struct rows_seen seen = {.opened = 0};
  struct problem problem;
  bool fed;
  struct tensor_upload *upload = upload_pieces(BODY_MEMORY, &file, 1000, &seen, &fed, &problem);
  ck_assert(!fed);
  check_refusal(&problem, PROBLEM_BODY_TOO_LARGE, "/score.w",
                "up to 250 numbers are taken, got 251");
  tensor_upload_free(upload);
  buffer_free(&file);
}
END_TEST

/* ---- Claims ---- */

/* Whatever arrives of it: the header is refused, and nothing was opened for it. */
static void refuse_claim(const struct tensor_upload_options *options, const struct buffer *file,
                         size_t head, enum problem_code code, const char *detail) {
  for (size_t length = head; length <= file->length; length += 1 + length / 2)
    for (size_t piece = 1; piece <= length; piece += 1 + piece / 3) {
      const struct buffer part = {.data = file->data, .length = length};
      struct rows_seen seen = {.opened = 0};
      struct problem problem;
      bool fed;
      tensor_upload_free(upload_with(*options, &part, piece, &seen, &fed, &problem));
      ck_assert(!fed);
      check_refusal(&problem, code, "", detail);
      ck_assert_uint_eq(seen.opened, 0);
    }
}

/* Held against what the body has, or may have, to the byte. */
START_TEST(test_claims) {
  struct buffer file = make_file(KV, "{'ids':['a','b']}", 8);
  const size_t length = file.length, head = length - 32;
  for (uint64_t less = 0; less < 80; less++) {
    const struct tensor_upload_options told = {.kind = BODY_MEMORY, .body_bytes = length - less};
    const struct tensor_upload_options limited = {.kind = BODY_MEMORY, .most_bytes = length - less};
    if (less > 0) {
      char detail[100];
      snprintf(detail, sizeof detail, "tells of 32 bytes of numbers, the body has %d behind it",
               less < 32 ? 32 - (int)less : 0);
      refuse_claim(&told, &file, head, PROBLEM_INVALID_TENSORS, detail);
      snprintf(detail, sizeof detail, "tells of 32 bytes of numbers; a body has at most %zu bytes",
               (size_t)(length - less));
      refuse_claim(&limited, &file, head, PROBLEM_BODY_TOO_LARGE, detail);
      continue;
    }
    const struct tensor_upload_options both = {
        .kind = BODY_MEMORY, .body_bytes = length, .most_bytes = 1};
    const struct tensor_upload_options *const taken[] = {&told, &limited, &both};
    for (size_t i = 0; i < 3; i++) {
      struct rows_seen seen = {.opened = 0};
      struct memory_body body;
      struct problem problem;
      bool fed;
      struct tensor_upload *upload = upload_with(*taken[i], &file, 7, &seen, &fed, &problem);
      ck_assert(fed && tensor_upload_finish_memory(upload, &body, &problem));
      ck_assert_uint_eq(seen.value_rows, 2);
      memory_body_free(&body);
      tensor_upload_free(upload);
    }
  }
  buffer_free(&file);
}
END_TEST

/* By every body that has tensors, however large the claim is. */
START_TEST(test_large_claims) {
  static const struct {
    const char *tensors;
    const char *detail;
  } cases[] = {{F32("keys", "[100000000,64]", "[0,25600000000]") "," F32(
                    "values", "[100000000,1]", "[25600000000,26000000000]"),
                "the header tells of 26000000000 bytes"},
               {F32("score.w", "[1048576,1048576]", "[0,4398046511104]") "," F32(
                    "keys", "[1,1]", "[4398046511104,4398046511108]") "," F32("values", "[1,1]",
                                                                              "[4398046511108,"
                                                                              "4398046511112]"),
                "the header tells of 4398046511112 bytes"},
               {"\"keys\":{\"dtype\":\"F16\",\"shape\":[576460752303423487,1],\"data_offsets\":[0,"
                "1152921504606846974]}",
                "the header tells of 1152921504606846974 bytes"},
               {F32("queries", "[4194304,1048576]", "[0,17592186044416]"),
                "the header tells of 17592186044416 bytes"},
               {F32("keys", "[1,1]", "[0,4]") "," F32("values", "[1,1]", "[4,8]") "," F32(
                    "queries", "[1,2]", "[8,16]"),
                "the header tells of 16 bytes"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct buffer file = make_file(cases[i].tensors, "{'score':'bilinear'}", 2);
    struct memory_body memory;
    struct rows_body rows;
    struct attend_body attend;
    struct problem problem;
    ck_assert(!tensor_body_parse_memory(NULL, file.data, file.length, &memory, &problem));
    check_refusal(&problem, PROBLEM_INVALID_TENSORS, "", cases[i].detail);
    ck_assert(!tensor_body_parse_rows(file.data, file.length, &rows, &problem));
    check_refusal(&problem, PROBLEM_INVALID_TENSORS, "", cases[i].detail);
    for (int kind = ATTEND_STORED; kind <= ATTEND_AD_HOC; kind++) {
      ck_assert(!tensor_body_parse_attend((enum attend_kind)kind, file.data, file.length, &attend,
                                          &problem));
      check_refusal(&problem, PROBLEM_INVALID_TENSORS, "", cases[i].detail);
    }
    const struct tensor_upload_options chunked = {.kind = BODY_MEMORY, .most_bytes = file.length};
    refuse_claim(&chunked, &file, file.length - 8, PROBLEM_BODY_TOO_LARGE, cases[i].detail);
    buffer_free(&file);
  }
}
END_TEST

/* Rows of a million numbers, of which a few have come. */
START_TEST(test_long_rows) {
  struct buffer file = make_file(F32("keys", "[2,1048576]", "[0,8388608]") "," F32(
                                     "values", "[2,1048576]", "[8388608,16777216]"),
                                 NULL, 5);
  const struct tensor_upload_options options = {.kind = BODY_MEMORY};
  struct rows_seen seen = {.opened = 0};
  struct problem problem;
  bool fed;
  const size_t before = heap_in_use();
  struct tensor_upload *upload = upload_with(options, &file, 3, &seen, &fed, &problem);
  ck_assert(fed);
  ck_assert_uint_eq(seen.opened, 1);
  ck_assert_uint_le(heap_in_use() - before, 65536);
  tensor_upload_free(upload);
  buffer_free(&file);
}
END_TEST

UNIT_MAIN("tensor_body", test_memory, test_empty_memory, test_score_tensors, test_attend, test_rows,
          test_override, test_memory_faults, test_other_faults, test_upload, test_upload_with_score,
          test_upload_of_rows, test_upload_dropped, test_upload_limit, test_claims,
          test_large_claims, test_long_rows)
