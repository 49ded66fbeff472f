/* What each kind of body may say, and what has to agree in it.
 *
 * A body is an object with a table of members: names and one reader each. The
 * readers fill the structure in the order of the text; what ties members to one
 * another (which are required, whose rows must be as many) is checked behind
 * the closing brace, when all are known. Until a parse has succeeded the
 * structure is a draft that is freed whole, so nothing is half applied. */
#include "codec/body.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "codec/scan.h"
#include "codec/spec.h"
#include "codec/tensor.h"

#define DEFAULT_SCORE     "scaled_dot"
#define MOST_MILLISECONDS 86400000     /* a day */
#define MOST_TTL_SECONDS  3155760000.0 /* a century */

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

static bool read_ids(struct scan *scan, void *to) {
  struct id_list **list = to;
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

static bool read_dimension(struct scan *scan, void *dimension) {
  return scan_whole(scan, 1, ATTN_MAX_DIM, dimension);
}

static bool read_dtype(struct scan *scan, void *dtype) {
  char known[64] = "";
  json_t *name = scan_load(scan, SCAN_STRING);
  if (!name) return false;
  const attn_dtype_info *info;
  for (size_t i = 0; (info = attn_dtype_info_at(i)) && !scan_is_word(name, info->name); i++)
    snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i > 0 ? ", " : "",
             info->name);
  if (info)
    *(attn_dtype *)dtype = info->dtype;
  else
    scan_fault(scan, PROBLEM_INVALID_PARAMETER, "expected one of %s, got \"%s\"", known,
               json_string_value(name));
  json_decref(name);
  return info;
}

static bool read_weights_word(struct scan *scan, struct attend_body *body) {
  json_t *word = scan_load(scan, SCAN_STRING);
  if (!word) return false;
  const bool full = scan_is_word(word, "full"), known = full || scan_is_word(word, "none");
  body->weights = full ? ATTN_WEIGHTS_FULL : ATTN_WEIGHTS_NONE;
  if (!known)
    scan_fault(scan, PROBLEM_INVALID_PARAMETER,
               "expected \"full\", \"none\" or {\"top\": K}, got \"%s\"", json_string_value(word));
  json_decref(word);
  return known;
}

static bool read_top(struct scan *scan, void *top) {
  return scan_whole(scan, 1, (size_t)1 << 53, top);
}

static bool read_weights(struct scan *scan, void *to) {
  static const struct scan_field top = {"top", read_top, offsetof(struct attend_body, top), true};
  static const struct scan_table table = {"weights", &top, 1};
  struct attend_body *body = to;
  const enum scan_kind kind = scan_kind(scan);
  if (kind == SCAN_STRING) return read_weights_word(scan, body);
  if (kind != SCAN_OBJECT) return scan_wrong_type(scan, "\"full\", \"none\" or {\"top\": K}");
  body->weights = ATTN_WEIGHTS_TOP;
  return scan_members(scan, &table, body, NULL);
}

static bool read_milliseconds(struct scan *scan, void *milliseconds) {
  size_t whole;
  if (!scan_whole(scan, 1, MOST_MILLISECONDS, &whole)) return false;
  *(double *)milliseconds = (double)whole;
  return true;
}

/* Fractions are allowed: a cache may want half a second. null: for ever. */
static bool read_ttl(struct scan *scan, void *to) {
  double *seconds = to;
  *seconds = 0;
  if (scan_kind(scan) == SCAN_NULL) return scan_load(scan, SCAN_NULL);
  if (!scan_double(scan, seconds)) return false;
  if (*seconds > 0 && *seconds <= MOST_TTL_SECONDS) return true;
  return scan_fault(scan, PROBLEM_INVALID_PARAMETER,
                    "expected null, or a number of seconds above 0 and up to %.0f, got %g",
                    MOST_TTL_SECONDS, *seconds);
}

static bool read_matrix(struct scan *scan, void *matrix) {
  if (!scan->tensors) return tensor_read_matrix(scan, matrix);
  return scan_fault(scan, PROBLEM_INVALID_TENSORS,
                    "expected a tensor of that name in place of the JSON");
}

/* ---- Tables ---- */

/* A kind of body: its members and, as bits, which of them may be tensors beside
 * the JSON, and which is the score, whose parameters may be. */
struct kind {
  struct scan_table table;
  uint32_t tensors, score;
};

#define BIT(member) ((uint32_t)1 << (member))

enum { M_KEYS, M_VALUES, M_KEY_DIM, M_VALUE_DIM, M_IDS, M_SCORE, M_NORMALIZATION, M_DTYPE, M_TTL };

static const struct scan_field memory_fields[] = {
    [M_KEYS] = {"keys", read_matrix, offsetof(struct memory_body, keys), false},
    [M_VALUES] = {"values", read_matrix, offsetof(struct memory_body, values), false},
    [M_KEY_DIM] = {"key_dim", read_dimension, offsetof(struct memory_body, key_dim), false},
    [M_VALUE_DIM] = {"value_dim", read_dimension, offsetof(struct memory_body, value_dim), false},
    [M_IDS] = {"ids", read_ids, offsetof(struct memory_body, ids), false},
    [M_SCORE] = {"score", spec_read_score, offsetof(struct memory_body, score), false},
    [M_NORMALIZATION] = {"normalization", spec_read_normalization,
                         offsetof(struct memory_body, normalization), false},
    [M_DTYPE] = {"dtype", read_dtype, offsetof(struct memory_body, dtype), false},
    [M_TTL] = {"ttl_seconds", read_ttl, offsetof(struct memory_body, ttl_seconds), false}};

enum { R_KEYS, R_VALUES, R_IDS, R_TTL };

static const struct scan_field rows_fields[] = {
    [R_KEYS] = {"keys", read_matrix, offsetof(struct rows_body, keys), false},
    [R_VALUES] = {"values", read_matrix, offsetof(struct rows_body, values), false},
    [R_IDS] = {"ids", read_ids, offsetof(struct rows_body, ids), false},
    [R_TTL] = {"ttl_seconds", read_ttl, offsetof(struct rows_body, ttl_seconds), false}};

enum { A_QUERIES, A_SCORE, A_NORMALIZATION, A_WEIGHTS, A_TIMEOUT, A_KEYS, A_VALUES };

/* The members from A_KEYS on are the ad-hoc kind's alone. */
static const struct scan_field attend_fields[] = {
    [A_QUERIES] = {"queries", read_matrix, offsetof(struct attend_body, queries), false},
    [A_SCORE] = {"score", spec_read_score, offsetof(struct attend_body, score), false},
    [A_NORMALIZATION] = {"normalization", spec_read_normalization,
                         offsetof(struct attend_body, normalization), false},
    [A_WEIGHTS] = {"weights", read_weights, 0, false},
    [A_TIMEOUT] = {"timeout_ms", read_milliseconds, offsetof(struct attend_body, timeout_ms),
                   false},
    [A_KEYS] = {"keys", read_matrix, offsetof(struct attend_body, keys), false},
    [A_VALUES] = {"values", read_matrix, offsetof(struct attend_body, values), false}};

static const struct kind kinds[] = {
    [BODY_MEMORY] = {.table = {"a memory", memory_fields, M_TTL + 1},
                     .tensors = BIT(M_KEYS) | BIT(M_VALUES),
                     .score = BIT(M_SCORE)},
    [BODY_ROWS] = {.table = {"rows", rows_fields, R_TTL + 1},
                   .tensors = BIT(R_KEYS) | BIT(R_VALUES)},
    [BODY_ATTEND_STORED] = {.table = {"attending to a stored memory", attend_fields, A_KEYS},
                            .tensors = BIT(A_QUERIES),
                            .score = BIT(A_SCORE)},
    [BODY_ATTEND_AD_HOC] = {.table = {"attending", attend_fields, A_VALUES + 1},
                            .tensors = BIT(A_QUERIES) | BIT(A_KEYS) | BIT(A_VALUES),
                            .score = BIT(A_SCORE)}};

/* ---- Reading ---- */

/* A draft, while it is read. */
struct reading {
  struct scan scan;
  const struct kind *kind;
  uint32_t seen; /* bit i: the kind's member i is there */
};

static void begin_reading(struct reading *reading, const struct kind *kind,
                          struct tensor_set *tensors, const char *text, size_t length,
                          struct problem *problem) {
  reading->kind = kind;
  reading->seen = 0;
  scan_begin(&reading->scan, text, length, problem);
  reading->scan.tensors = tensors;
}

static bool has(const struct reading *reading, unsigned member) {
  return reading->seen >> member & 1;
}

static bool require(struct reading *reading, unsigned member) {
  const struct scan_table *table = &reading->kind->table;
  return has(reading, member) ||
         scan_missing(&reading->scan, table->what, table->fields[member].name);
}

/* The index of the member that such a tensor fills; `count` for none. One named
 * "score.w" fills the member "score", together with the JSON. */
static size_t find_place(const struct kind *kind, const char *name) {
  const bool param = strncmp(name, "score.", 6) == 0;
  const uint32_t among = param ? kind->score : kind->tensors;
  size_t i = 0;
  while (i < kind->table.count &&
         !(among & BIT(i) && (param || strcmp(kind->table.fields[i].name, name) == 0)))
    i++;
  return i;
}

/* Rows may be missing where a whole memory is made. */
static bool take_matrix(struct reading *reading, struct named_tensor *item, struct matrix *matrix) {
  struct problem *problem = reading->scan.problem;
  if (item->matrix.rows == 0 && reading->kind != &kinds[BODY_MEMORY])
    return named_tensor_fault(item, problem, PROBLEM_SHAPE_MISMATCH, "expected at least one row");
  return named_tensor_take(item, 2, matrix, problem);
}

/* Those that the reader of the score has not taken. */
static bool take_tensors(struct reading *reading, void *draft) {
  struct scan *scan = &reading->scan;
  const struct scan_table *table = &reading->kind->table;
  for (size_t i = 0; scan->tensors && i < scan->tensors->count; i++) {
    struct named_tensor *item = &scan->tensors->items[i];
    if (item->taken) continue;
    const size_t place = find_place(reading->kind, item->name);
    if (place == table->count)
      return named_tensor_fault(item, scan->problem, PROBLEM_UNKNOWN_MEMBER,
                                "%s takes no tensor of that name", table->what);
    if (reading->kind->score & BIT(place)) {
      scan_enter_name(scan, table->fields[place].name);
      return scan_fault(scan, PROBLEM_MISSING_MEMBER,
                        "the tensor \"%s\" needs \"score\" in the JSON", item->name);
    }
    if (!take_matrix(reading, item, (void *)((char *)draft + table->fields[place].offset)))
      return false;
    reading->seen |= BIT(place);
  }
  return true;
}

/* The body's outermost value; what it has beside it counts as members too. */
static bool read_body(struct reading *reading, void *draft) {
  struct scan *scan = &reading->scan;
  if (scan_kind(scan) == SCAN_NOTHING && scan->at == scan->end)
    return scan_fault(scan, PROBLEM_INVALID_JSON, "the body is empty; expected a JSON object");
  return scan_members(scan, &reading->kind->table, draft, &reading->seen) &&
         take_tensors(reading, draft);
}

/* ---- A memory ---- */

/* Rows, or dimensions in their place. */
static bool check_members(struct reading *reading) {
  bool rows = has(reading, M_KEYS) || has(reading, M_VALUES);
  bool dimensions = has(reading, M_KEY_DIM) || has(reading, M_VALUE_DIM);
  if (rows && dimensions)
    return problem_set(reading->scan.problem, PROBLEM_INVALID_PARAMETER,
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
  struct reading reading;
  begin_reading(&reading, &kinds[BODY_MEMORY], tensors, text, length, problem);
  *body = (struct memory_body){.ids = NULL};
  const bool read = read_body(&reading, body) && check_members(&reading) &&
                    memory_body_settle(body, override, problem);
  const bool parsed = scan_end(&reading.scan, read);
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
  struct reading reading;
  begin_reading(&reading, &kinds[BODY_ROWS], tensors, text, length, problem);
  *body = (struct rows_body){.ids = NULL};
  const bool read = read_body(&reading, body) && require(&reading, R_KEYS) &&
                    require(&reading, R_VALUES) && rows_body_settle(body, problem);
  body->has_ttl = has(&reading, R_TTL);
  const bool parsed = scan_end(&reading.scan, read);
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
  static const struct scan_field field = {"ids", read_ids, 0, true};
  static const struct kind kind = {.table = {"removing rows", &field, 1}};
  struct reading reading;
  begin_reading(&reading, &kind, NULL, text, length, problem);
  *ids = NULL;
  bool parsed = scan_end(&reading.scan, read_body(&reading, ids));
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

static const struct scan_field settings_fields[] = {
    [S_SCORE] = {"score", spec_read_score, offsetof(struct settings_body, score), false},
    [S_NORMALIZATION] = {"normalization", spec_read_normalization,
                         offsetof(struct settings_body, normalization), false},
    [S_TTL] = {"ttl_seconds", read_ttl, offsetof(struct settings_body, ttl_seconds), false}};

bool body_parse_settings(const char *text, size_t length, struct settings_body *body,
                         struct problem *problem) {
  static const struct kind kind = {.table = {"changing a memory", settings_fields, S_TTL + 1}};
  struct reading reading;
  begin_reading(&reading, &kind, NULL, text, length, problem);
  *body = (struct settings_body){.score = NULL};
  const bool parsed = scan_end(&reading.scan, read_body(&reading, body));
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
  struct problem *problem = reading->scan.problem;
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
  struct reading reading;
  begin_reading(&reading, &kinds[kind == ATTEND_STORED ? BODY_ATTEND_STORED : BODY_ATTEND_AD_HOC],
                tensors, text, length, problem);
  *body = (struct attend_body){.weights = ATTN_WEIGHTS_FULL};
  const bool parsed =
      scan_end(&reading.scan, read_body(&reading, body) && check_attend(&reading, kind, body));
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

/* ---- Single members ---- */

static bool is_tensor_of_scores(const char *param) {
  const attn_score_info *info;
  for (size_t i = 0; (info = attn_score_info_at(i)); i++)
    for (size_t p = 0; p < info->param_count; p++)
      if (info->params[p].shape[0] && strcmp(info->params[p].name, param) == 0) return true;
  return false;
}

bool body_check_tensor(enum body_kind body_kind, const char *name, struct problem *problem) {
  const struct kind *kind = &kinds[body_kind];
  const size_t index = find_place(kind, name);
  if (index < kind->table.count && (kind->tensors & BIT(index) || is_tensor_of_scores(name + 6)))
    return true;
  char known[PROBLEM_DETAIL_MAX] = "", pointer[PROBLEM_POINTER_MAX] = "";
  for (size_t i = 0; i < kind->table.count; i++)
    if ((kind->tensors | kind->score) & BIT(i))
      snprintf(known + strlen(known), sizeof known - strlen(known), "%s\"%s%s\"",
               known[0] ? ", " : "", kind->table.fields[i].name,
               kind->score & BIT(i) ? ".PARAMETER" : "");
  pointer_push_name(pointer, name, strlen(name));
  return problem_set(problem, PROBLEM_UNKNOWN_MEMBER, pointer,
                     "%s takes tensors named %s, not \"%s\"", kind->table.what, known, name);
}

bool body_peek_dtype(const char *text, size_t length, attn_dtype *dtype, struct problem *problem) {
  struct scan scan;
  scan_begin(&scan, text, length, problem);
  if (!scan_check(text, length, problem)) return false;
  const int found = scan_find(&scan, "dtype");
  return found == SCAN_CLOSED || (found >= 0 && read_dtype(&scan, dtype));
}
