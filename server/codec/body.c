/* What each kind of body may say, and what has to agree in it.
 *
 * A body is an object with a table of members: names and one reader each. The
 * readers fill the structure in the order of the text; what ties members to one
 * another (which are required, whose rows must be as many) is checked behind
 * the closing brace, when all are known. Until a parse has succeeded the
 * structure is a draft that is freed whole, so nothing is half applied. */
#include "codec/body.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "codec/scan.h"
#include "codec/spec.h"
#include "codec/tensor.h"

#define DEFAULT_SCORE     "scaled_dot"
#define MOST_MILLISECONDS 86400000.0   /* a day */
#define MOST_TTL_SECONDS  3155760000.0 /* a century */

enum member_kind {
  MATRIX,
  DIMENSION,
  IDS,
  SCORE,
  NORMALIZATION,
  DTYPE,
  WEIGHTS,
  MILLISECONDS,
  TTL
};

/* A member, and the place in the draft that it fills. */
struct member {
  const char *name;
  enum member_kind kind;
  size_t offset;
};

/* SHOWN_MAX: of a string that is quoted back. */
enum { MEMBERS_MAX = 9, SHOWN_MAX = 40 };

/* A draft, while it is read. */
struct reading {
  struct scan *scan;
  struct tensor_set *tensors; /* NULL for a body of JSON alone */
  const struct member *members;
  struct scan_object object; /* names[i] is that of members[i] */
  const char *names[MEMBERS_MAX];
};

static bool read_member(struct reading *reading, enum member_kind kind, void *field);

static struct reading begin_reading(struct scan *scan, enum body_kind kind,
                                    struct tensor_set *tensors);
static bool take_tensors(struct reading *reading, void *draft);

/* Reads the object into the draft; object.seen then says which members it has. */
static bool read_members(struct reading *reading, void *draft) {
  struct scan_object *object = &reading->object;
  for (size_t i = 0; i < object->count; i++)
    reading->names[i] = reading->members[i].name;
  object->names = reading->names;
  int index;
  while ((index = scan_member(reading->scan, object)) >= 0) {
    const struct member *member = &reading->members[index];
    if (!read_member(reading, member->kind, (char *)draft + member->offset)) return false;
  }
  return index == SCAN_CLOSED && take_tensors(reading, draft);
}

static bool has(const struct reading *reading, unsigned member) {
  return reading->object.seen >> member & 1;
}

static bool require(struct reading *reading, unsigned member) {
  return has(reading, member) || scan_missing(reading->scan, &reading->object, member);
}

/* The body's outermost value. */
static bool open_body(struct scan *scan) {
  if (scan_kind(scan) == SCAN_NOTHING && scan->at == scan->end)
    return scan_fault(scan, PROBLEM_INVALID_JSON, "the body is empty; expected a JSON object");
  return scan_open(scan, '{');
}

static bool check_dimension(const struct matrix *matrix, const char *pointer,
                            struct problem *problem) {
  if (matrix->cols <= ATTN_MAX_DIM) return true;
  return problem_set(problem, PROBLEM_SHAPE_MISMATCH, pointer,
                     "a row has %zu numbers; at most %zu are possible", matrix->cols, ATTN_MAX_DIM);
}

static bool check_rows(const struct matrix *keys, const struct matrix *values,
                       struct problem *problem) {
  if (keys->rows == values->rows)
    return check_dimension(keys, "/keys", problem) && check_dimension(values, "/values", problem);
  return problem_set(problem, PROBLEM_SHAPE_MISMATCH, "/values",
                     "keys has %zu rows, values has %zu", keys->rows, values->rows);
}

bool body_check_score(const attn_score *score, size_t key_dim, struct problem *problem) {
  attn_fault fault;
  if (attn_score_check_keys(score, key_dim, &fault) == ATTN_OK) return true;
  return problem_set(problem, PROBLEM_SHAPE_MISMATCH, "/score", "%s", fault.detail);
}

attn_normalization *body_default_normalization(const attn_score *score) {
  attn_normalization *normalization = NULL;
  const char *name = attn_score_get_info(score)->normalization;
  return attn_normalization_create(&normalization, name, NULL, 0, NULL) == ATTN_OK ? normalization
                                                                                   : NULL;
}

/* ---- Ids ---- */

static bool append_id(struct scan *scan, struct id_list *ids, size_t index) {
  char id[ID_LENGTH_MAX];
  size_t length;
  size_t outer = scan_enter_index(scan, index);
  if (!scan_string(scan, id, sizeof id, &length)) return false;
  if (length == 0 || length > ID_LENGTH_MAX)
    return scan_fault(scan, PROBLEM_INVALID_ID, "expected 1 to %d bytes, got %zu", ID_LENGTH_MAX,
                      length);
  if (memchr(id, '\0', length))
    return scan_fault(scan, PROBLEM_INVALID_ID, "an id has no U+0000 in it");
  if (!id_list_append(ids, id, length))
    return problem_set_status(scan->problem, ATTN_NO_MEMORY, "");
  scan_leave(scan, outer);
  return true;
}

static bool check_distinct(struct scan *scan, const struct id_list *ids) {
  size_t index = id_list_find_duplicate(ids);
  if (index == SIZE_MAX) return true;
  if (index == SIZE_MAX - 1) return problem_set_status(scan->problem, ATTN_NO_MEMORY, "");
  scan_enter_index(scan, index);
  return scan_fault(scan, PROBLEM_DUPLICATE_ID, "the id \"%s\" is there already",
                    id_list_get(ids, index, NULL));
}

static bool read_ids(struct scan *scan, struct id_list **list) {
  *list = id_list_create();
  if (!*list) return problem_set_status(scan->problem, ATTN_NO_MEMORY, "");
  if (scan_kind(scan) != SCAN_ARRAY) return scan_wrong_type(scan, "an array of strings");
  scan_open(scan, '[');
  int more;
  size_t count = 0;
  while ((more = scan_element(scan, count)) > 0)
    if (!append_id(scan, *list, count++)) return false;
  return more == SCAN_CLOSED && check_distinct(scan, *list);
}

/* ---- Other members ---- */

static bool read_dimension(struct scan *scan, size_t *dimension) {
  double number;
  if (!scan_whole(scan, 1, (double)ATTN_MAX_DIM, &number)) return false;
  *dimension = (size_t)number;
  return true;
}

static bool read_dtype(struct scan *scan, attn_dtype *dtype) {
  char name[SHOWN_MAX], known[SHOWN_MAX] = "";
  size_t length;
  if (!scan_string(scan, name, sizeof name - 1, &length)) return false;
  const attn_dtype_info *info;
  for (size_t i = 0; (info = attn_dtype_info_at(i)); i++) {
    if (length == strlen(info->name) && memcmp(name, info->name, length) == 0) {
      *dtype = info->dtype;
      return true;
    }
    snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i > 0 ? ", " : "",
             info->name);
  }
  return scan_fault(scan, PROBLEM_INVALID_PARAMETER, "expected one of %s, got \"%.*s\"", known,
                    (int)(length < sizeof name ? length : sizeof name - 1), name);
}

static bool read_weights_word(struct scan *scan, struct attend_body *body) {
  char word[SHOWN_MAX];
  size_t length;
  if (!scan_string(scan, word, sizeof word, &length)) return false;
  bool full = length == 4 && memcmp(word, "full", 4) == 0;
  bool none = length == 4 && memcmp(word, "none", 4) == 0;
  if (!full && !none)
    return scan_fault(scan, PROBLEM_INVALID_PARAMETER,
                      "expected \"full\", \"none\" or {\"top\": K}, got \"%.*s\"",
                      (int)(length < sizeof word ? length : sizeof word), word);
  body->weights = full ? ATTN_WEIGHTS_FULL : ATTN_WEIGHTS_NONE;
  return true;
}

static bool read_weights_top(struct scan *scan, struct attend_body *body) {
  static const char *const names[] = {"top"};
  struct scan_object object = {.what = "weights", .names = names, .count = 1};
  if (!scan_open(scan, '{')) return false;
  int member;
  double top = 0;
  while ((member = scan_member(scan, &object)) >= 0)
    if (!scan_whole(scan, 1, 0x1p53, &top)) return false;
  if (member == SCAN_FAULT) return false;
  if (object.seen == 0) return scan_missing(scan, &object, 0);
  body->weights = ATTN_WEIGHTS_TOP;
  body->top = (size_t)top;
  return true;
}

static bool read_weights(struct scan *scan, struct attend_body *body) {
  switch (scan_kind(scan)) {
  case SCAN_STRING:
    return read_weights_word(scan, body);
  case SCAN_OBJECT:
    return read_weights_top(scan, body);
  default:
    return scan_wrong_type(scan, "\"full\", \"none\" or {\"top\": K}");
  }
}

/* Fractions are allowed: a cache may want half a second. null: for ever. */
static bool read_ttl(struct scan *scan, double *seconds) {
  *seconds = 0;
  if (scan_kind(scan) == SCAN_NULL) {
    const char *start;
    size_t length;
    return scan_skip(scan, &start, &length) &&
           ((length == 4 && memcmp(start, "null", 4) == 0) || scan_wrong_type(scan, "null"));
  }
  if (!scan_double(scan, seconds)) return false;
  if (*seconds > 0 && *seconds <= MOST_TTL_SECONDS) return true;
  return scan_fault(scan, PROBLEM_INVALID_PARAMETER,
                    "expected null, or a number of seconds above 0 and up to %.0f, got %g",
                    MOST_TTL_SECONDS, *seconds);
}

static bool read_matrix(struct reading *reading, struct matrix *matrix) {
  if (!reading->tensors) return tensor_read_matrix(reading->scan, matrix);
  return scan_fault(reading->scan, PROBLEM_INVALID_TENSORS,
                    "expected a tensor of that name in place of the JSON");
}

static bool read_member(struct reading *reading, enum member_kind kind, void *field) {
  struct scan *scan = reading->scan;
  switch (kind) {
  case MATRIX:
    return read_matrix(reading, field);
  case DIMENSION:
    return read_dimension(scan, field);
  case IDS:
    return read_ids(scan, field);
  case SCORE:
    return spec_read_score(scan, reading->tensors, field);
  case NORMALIZATION:
    return spec_read_normalization(scan, field);
  case DTYPE:
    return read_dtype(scan, field);
  case WEIGHTS:
    return read_weights(scan, field);
  case MILLISECONDS:
    return scan_whole(scan, 1, MOST_MILLISECONDS, field);
  case TTL:
    return read_ttl(scan, field);
  }
  return false;
}

/* ---- A memory ---- */

enum { M_KEYS, M_VALUES, M_KEY_DIM, M_VALUE_DIM, M_IDS, M_SCORE, M_NORMALIZATION, M_DTYPE, M_TTL };

static const struct member memory_members[] = {
    [M_KEYS] = {"keys", MATRIX, offsetof(struct memory_body, keys)},
    [M_VALUES] = {"values", MATRIX, offsetof(struct memory_body, values)},
    [M_KEY_DIM] = {"key_dim", DIMENSION, offsetof(struct memory_body, key_dim)},
    [M_VALUE_DIM] = {"value_dim", DIMENSION, offsetof(struct memory_body, value_dim)},
    [M_IDS] = {"ids", IDS, offsetof(struct memory_body, ids)},
    [M_SCORE] = {"score", SCORE, offsetof(struct memory_body, score)},
    [M_NORMALIZATION] = {"normalization", NORMALIZATION,
                         offsetof(struct memory_body, normalization)},
    [M_DTYPE] = {"dtype", DTYPE, offsetof(struct memory_body, dtype)},
    [M_TTL] = {"ttl_seconds", TTL, offsetof(struct memory_body, ttl_seconds)}};

/* Rows, or dimensions in their place. */
static bool check_members(struct reading *reading) {
  bool rows = has(reading, M_KEYS) || has(reading, M_VALUES);
  bool dimensions = has(reading, M_KEY_DIM) || has(reading, M_VALUE_DIM);
  if (rows && dimensions)
    return problem_set(reading->scan->problem, PROBLEM_INVALID_PARAMETER,
                       has(reading, M_KEY_DIM) ? "/key_dim" : "/value_dim",
                       "dimensions are given in place of keys and values, not with them");
  return dimensions ? require(reading, M_KEY_DIM) && require(reading, M_VALUE_DIM)
                    : require(reading, M_KEYS) && require(reading, M_VALUES);
}

static bool check_ids(const struct id_list *ids, size_t rows, struct problem *problem) {
  if (!ids || id_list_count(ids) == rows) return true;
  return problem_set(problem, PROBLEM_SHAPE_MISMATCH, "/ids",
                     "expected one id for each of %zu rows, got %zu", rows, id_list_count(ids));
}

static bool settle_score(const struct memory_override *override, struct memory_body *body,
                         struct problem *problem) {
  if (override->score) {
    attn_score_free(body->score);
    body->score = attn_score_ref(override->score);
  }
  if (override->normalization) {
    attn_normalization_free(body->normalization);
    body->normalization = attn_normalization_ref(override->normalization);
  }
  if (!body->score && attn_score_create(&body->score, DEFAULT_SCORE, NULL, 0, NULL) != ATTN_OK)
    return problem_set_status(problem, ATTN_NO_MEMORY, "");
  if (!body->normalization) body->normalization = body_default_normalization(body->score);
  if (!body->normalization) return problem_set_status(problem, ATTN_NO_MEMORY, "");
  return body_check_score(body->score, body->key_dim, problem);
}

bool memory_body_settle(struct memory_body *body, const struct memory_override *override,
                        struct problem *problem) {
  if (!check_rows(&body->keys, &body->values, problem)) return false;
  if (body->keys.cols > 0) {
    body->key_dim = body->keys.cols;
    body->value_dim = body->values.cols;
  }
  return check_ids(body->ids, body->keys.rows, problem) && settle_score(override, body, problem);
}

bool body_parse_memory_with(const struct memory_override *override, struct tensor_set *tensors,
                            const char *text, size_t length, struct memory_body *body,
                            struct problem *problem) {
  struct scan scan;
  struct reading reading = begin_reading(&scan, BODY_MEMORY, tensors);
  *body = (struct memory_body){.ids = NULL};
  scan_begin(&scan, text, length, problem);
  const bool read = open_body(&scan) && read_members(&reading, body) && check_members(&reading) &&
                    memory_body_settle(body, override, problem);
  const bool parsed = scan_end(&scan, read);
  if (!parsed) memory_body_free(body);
  return parsed;
}

bool body_parse_memory_as(const struct memory_override *override, const char *text, size_t length,
                          struct memory_body *body, struct problem *problem) {
  return body_parse_memory_with(override, NULL, text, length, body, problem);
}

bool body_parse_memory(const char *text, size_t length, struct memory_body *body,
                       struct problem *problem) {
  static const struct memory_override nothing = {NULL, NULL};
  return body_parse_memory_as(&nothing, text, length, body, problem);
}

void memory_body_free(struct memory_body *body) {
  matrix_free(&body->keys);
  matrix_free(&body->values);
  id_list_free(body->ids);
  attn_score_free(body->score);
  attn_normalization_free(body->normalization);
  *body = (struct memory_body){.ids = NULL};
}

/* ---- Changes of a memory ---- */

enum { R_KEYS, R_VALUES, R_IDS, R_TTL };

static const struct member rows_members[] = {
    [R_KEYS] = {"keys", MATRIX, offsetof(struct rows_body, keys)},
    [R_VALUES] = {"values", MATRIX, offsetof(struct rows_body, values)},
    [R_IDS] = {"ids", IDS, offsetof(struct rows_body, ids)},
    [R_TTL] = {"ttl_seconds", TTL, offsetof(struct rows_body, ttl_seconds)}};

bool rows_body_settle(const struct rows_body *body, struct problem *problem) {
  return check_rows(&body->keys, &body->values, problem) &&
         check_ids(body->ids, body->keys.rows, problem);
}

bool body_parse_rows(const char *text, size_t length, struct rows_body *body,
                     struct problem *problem) {
  return body_parse_rows_with(NULL, text, length, body, problem);
}

bool body_parse_rows_with(struct tensor_set *tensors, const char *text, size_t length,
                          struct rows_body *body, struct problem *problem) {
  struct scan scan;
  struct reading reading = begin_reading(&scan, BODY_ROWS, tensors);
  *body = (struct rows_body){.ids = NULL};
  scan_begin(&scan, text, length, problem);
  const bool read = open_body(&scan) && read_members(&reading, body) && require(&reading, R_KEYS) &&
                    require(&reading, R_VALUES) && rows_body_settle(body, problem);
  body->has_ttl = has(&reading, R_TTL);
  const bool parsed = scan_end(&scan, read);
  if (!parsed) rows_body_free(body);
  return parsed;
}

void rows_body_free(struct rows_body *body) {
  matrix_free(&body->keys);
  matrix_free(&body->values);
  id_list_free(body->ids);
  *body = (struct rows_body){.ids = NULL};
}

bool body_parse_removal(const char *text, size_t length, struct id_list **ids,
                        struct problem *problem) {
  static const struct member members[] = {{"ids", IDS, 0}};
  struct scan scan;
  struct reading reading = {
      .scan = &scan, .members = members, .object = {.what = "removing rows", .count = 1}};
  *ids = NULL;
  scan_begin(&scan, text, length, problem);
  bool parsed = scan_end(&scan, open_body(&scan) && read_members(&reading, (void *)ids) &&
                                    require(&reading, 0));
  if (parsed && id_list_count(*ids) == 0)
    parsed = problem_set(problem, PROBLEM_INVALID_PARAMETER, "/ids",
                         "expected at least one id, got an empty array");
  if (!parsed) {
    id_list_free(*ids);
    *ids = NULL;
  }
  return parsed;
}

enum { S_SCORE, S_NORMALIZATION, S_TTL };

static const struct member settings_members[] = {
    [S_SCORE] = {"score", SCORE, offsetof(struct settings_body, score)},
    [S_NORMALIZATION] = {"normalization", NORMALIZATION,
                         offsetof(struct settings_body, normalization)},
    [S_TTL] = {"ttl_seconds", TTL, offsetof(struct settings_body, ttl_seconds)}};

bool body_parse_settings(const char *text, size_t length, struct settings_body *body,
                         struct problem *problem) {
  struct scan scan;
  struct reading reading = {
      .scan = &scan,
      .members = settings_members,
      .object = {.what = "changing a memory",
                 .count = sizeof settings_members / sizeof *settings_members}};
  *body = (struct settings_body){.score = NULL};
  scan_begin(&scan, text, length, problem);
  const bool parsed = scan_end(&scan, open_body(&scan) && read_members(&reading, body));
  body->has_ttl = has(&reading, S_TTL);
  if (!parsed) settings_body_free(body);
  return parsed;
}

void settings_body_free(struct settings_body *body) {
  attn_score_free(body->score);
  attn_normalization_free(body->normalization);
  *body = (struct settings_body){.score = NULL};
}

/* ---- Attend ---- */

enum { A_QUERIES, A_SCORE, A_NORMALIZATION, A_WEIGHTS, A_TIMEOUT, A_KEYS, A_VALUES };

/* The members from A_KEYS on are the ad-hoc kind's alone. */
static const struct member attend_members[] = {
    [A_QUERIES] = {"queries", MATRIX, offsetof(struct attend_body, queries)},
    [A_SCORE] = {"score", SCORE, offsetof(struct attend_body, score)},
    [A_NORMALIZATION] = {"normalization", NORMALIZATION,
                         offsetof(struct attend_body, normalization)},
    [A_WEIGHTS] = {"weights", WEIGHTS, 0},
    [A_TIMEOUT] = {"timeout_ms", MILLISECONDS, offsetof(struct attend_body, timeout_ms)},
    [A_KEYS] = {"keys", MATRIX, offsetof(struct attend_body, keys)},
    [A_VALUES] = {"values", MATRIX, offsetof(struct attend_body, values)}};

static bool check_query_dim(const struct attend_body *body, struct problem *problem) {
  size_t expected = attn_score_query_dim(body->score, body->keys.cols);
  if (body->queries.cols == expected) return true;
  return problem_set(problem, PROBLEM_SHAPE_MISMATCH, "/queries",
                     "%s and keys of %zu numbers take queries of %zu, got %zu",
                     attn_score_get_info(body->score)->name, body->keys.cols, expected,
                     body->queries.cols);
}

static bool check_attend(struct reading *reading, enum attend_kind kind,
                         const struct attend_body *body) {
  struct problem *problem = reading->scan->problem;
  if (!require(reading, A_QUERIES) || !check_dimension(&body->queries, "/queries", problem))
    return false;
  if (kind == ATTEND_STORED) return true;
  if (!require(reading, A_KEYS) || !require(reading, A_VALUES) ||
      !check_rows(&body->keys, &body->values, problem))
    return false;
  /* Without a score the caller's default decides, and checks. */
  return !body->score || (body_check_score(body->score, body->keys.cols, problem) &&
                          check_query_dim(body, problem));
}

bool body_parse_attend_with(enum attend_kind kind, struct tensor_set *tensors, const char *text,
                            size_t length, struct attend_body *body, struct problem *problem) {
  struct scan scan;
  struct reading reading = begin_reading(
      &scan, kind == ATTEND_STORED ? BODY_ATTEND_STORED : BODY_ATTEND_AD_HOC, tensors);
  *body = (struct attend_body){.weights = ATTN_WEIGHTS_FULL};
  scan_begin(&scan, text, length, problem);
  const bool read =
      open_body(&scan) && read_members(&reading, body) && check_attend(&reading, kind, body);
  const bool parsed = scan_end(&scan, read);
  if (!parsed) attend_body_free(body);
  return parsed;
}

bool body_parse_attend(enum attend_kind kind, const char *text, size_t length,
                       struct attend_body *body, struct problem *problem) {
  return body_parse_attend_with(kind, NULL, text, length, body, problem);
}

void attend_body_free(struct attend_body *body) {
  matrix_free(&body->queries);
  matrix_free(&body->keys);
  matrix_free(&body->values);
  attn_score_free(body->score);
  attn_normalization_free(body->normalization);
  *body = (struct attend_body){.weights = ATTN_WEIGHTS_FULL};
}

/* ---- Tensors beside the JSON ---- */

/* Those kinds that may have some. */
static const struct {
  const char *what;
  const struct member *members;
  size_t count;
} kinds[] = {
    [BODY_MEMORY] = {"a memory", memory_members, sizeof memory_members / sizeof *memory_members},
    [BODY_ROWS] = {"rows", rows_members, sizeof rows_members / sizeof *rows_members},
    [BODY_ATTEND_STORED] = {"attending to a stored memory", attend_members, A_KEYS},
    [BODY_ATTEND_AD_HOC] = {"attending", attend_members, A_VALUES + 1}};

static struct reading begin_reading(struct scan *scan, enum body_kind kind,
                                    struct tensor_set *tensors) {
  return (struct reading){.scan = scan,
                          .tensors = tensors,
                          .members = kinds[kind].members,
                          .object = {.what = kinds[kind].what, .count = kinds[kind].count}};
}

/* The index of the member that such a tensor fills; `count` for none. One named
 * "score.w" fills the member "score", together with the JSON. */
static size_t find_place(const struct member *members, size_t count, const char *name) {
  const bool param = strncmp(name, "score.", 6) == 0;
  size_t i = 0;
  while (i < count && (param ? members[i].kind != SCORE
                             : members[i].kind != MATRIX || strcmp(members[i].name, name) != 0))
    i++;
  return i;
}

static bool is_tensor_of_scores(const char *param) {
  const attn_score_info *info;
  for (size_t i = 0; (info = attn_score_info_at(i)); i++)
    for (size_t p = 0; p < info->param_count; p++)
      if (info->params[p].shape[0] && strcmp(info->params[p].name, param) == 0) return true;
  return false;
}

bool body_check_tensor(enum body_kind kind, const char *name, struct problem *problem) {
  const struct member *members = kinds[kind].members;
  const size_t count = kinds[kind].count, index = find_place(members, count, name);
  if (index < count && (members[index].kind == MATRIX || is_tensor_of_scores(name + 6)))
    return true;
  char known[PROBLEM_DETAIL_MAX] = "", pointer[PROBLEM_POINTER_MAX] = "";
  for (size_t i = 0; i < count; i++)
    if (members[i].kind == MATRIX || members[i].kind == SCORE)
      snprintf(known + strlen(known), sizeof known - strlen(known), "%s\"%s%s\"",
               known[0] ? ", " : "", members[i].name, members[i].kind == SCORE ? ".PARAMETER" : "");
  pointer_push_name(pointer, name, strlen(name));
  return problem_set(problem, PROBLEM_UNKNOWN_MEMBER, pointer,
                     "%s takes tensors named %s, not \"%s\"", kinds[kind].what, known, name);
}

/* Rows may be missing where a whole memory is made. */
static bool take_matrix(struct reading *reading, struct named_tensor *item, struct matrix *matrix) {
  struct problem *problem = reading->scan->problem;
  if (item->matrix.rows == 0 && reading->members != memory_members)
    return named_tensor_fault(item, problem, PROBLEM_SHAPE_MISMATCH, "expected at least one row");
  return named_tensor_take(item, 2, matrix, problem);
}

/* Those that the reader of the score has not taken. */
static bool take_tensors(struct reading *reading, void *draft) {
  for (size_t i = 0; reading->tensors && i < reading->tensors->count; i++) {
    struct named_tensor *item = &reading->tensors->items[i];
    if (item->taken) continue;
    const size_t place = find_place(reading->members, reading->object.count, item->name);
    if (place == reading->object.count)
      return named_tensor_fault(item, reading->scan->problem, PROBLEM_UNKNOWN_MEMBER,
                                "%s takes no tensor of that name", reading->object.what);
    const struct member *member = &reading->members[place];
    if (member->kind == SCORE) {
      scan_enter_name(reading->scan, member->name);
      return scan_fault(reading->scan, PROBLEM_MISSING_MEMBER,
                        "the tensor \"%s\" needs \"score\" in the JSON", item->name);
    }
    if (!take_matrix(reading, item, (void *)((char *)draft + member->offset))) return false;
    reading->object.seen |= (uint32_t)1 << place;
  }
  return true;
}

bool body_peek_dtype(const char *text, size_t length, attn_dtype *dtype, struct problem *problem) {
  static const char *const names[] = {"dtype"};
  struct scan scan;
  struct scan_object object = {.names = names, .count = 1, .others = true};
  const char *start;
  size_t skipped;
  scan_begin(&scan, text, length, problem);
  if (!scan_check(text, length, problem) || !open_body(&scan)) return false;
  int member;
  while ((member = scan_member(&scan, &object)) >= 0)
    if (member == 0 ? !read_dtype(&scan, dtype) : !scan_skip(&scan, &start, &skipped)) return false;
  return member == SCAN_CLOSED;
}
