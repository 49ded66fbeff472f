/* Scores and normalizations differ in their tables and in nothing else, so one
 * reader serves both, through a struct family.
 *
 * Members have no order in JSON, but what a parameter means depends on "type".
 * So an object is walked twice: first for its type, stopping there, which is at
 * once where the type is written first; then for the parameters. Reading
 * parameters before their type is known was rejected: their kinds would have to
 * be guessed, and faults be said long after their place. */
#include "codec/spec.h"

#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "codec/tensor.h"
#include "codec/tensor_set.h"

/* "type" and parameters. */
enum { MEMBERS_MAX = 1 + ATTN_PARAMS_MAX };

/* A line of the library's table, of either kind. */
struct kind {
  const char *name; /* NULL: there is no such line */
  const attn_param_info *params;
  size_t param_count;
};

struct family {
  const char *noun;
  enum problem_code unknown;
  struct kind (*at)(size_t index);
  attn_status (*create)(void *to, const char *name, const attn_argument *arguments, size_t count,
                        attn_fault *fault);
};

static struct kind score_at(size_t index) {
  const attn_score_info *info = attn_score_info_at(index);
  return info ? (struct kind){info->name, info->params, info->param_count} : (struct kind){0};
}

static struct kind normalization_at(size_t index) {
  const attn_normalization_info *info = attn_normalization_info_at(index);
  return info ? (struct kind){info->name, info->params, info->param_count} : (struct kind){0};
}

static attn_status create_score(void *to, const char *name, const attn_argument *arguments,
                                size_t count, attn_fault *fault) {
  return attn_score_create(to, name, arguments, count, fault);
}

static attn_status create_normalization(void *to, const char *name, const attn_argument *arguments,
                                        size_t count, attn_fault *fault) {
  return attn_normalization_create(to, name, arguments, count, fault);
}

static const struct family score_family = {"score", PROBLEM_UNKNOWN_SCORE, score_at, create_score};
static const struct family normalization_family = {"normalization", PROBLEM_UNKNOWN_NORMALIZATION,
                                                   normalization_at, create_normalization};

/* A parameter of the kind, as far as it was read: a number, or a tensor. */
struct param {
  const attn_param_info *info;
  double number;
  struct matrix tensor;
  bool given, binary; /* binary: it was not part of the JSON */
};

struct spec {
  struct kind kind;
  struct param params[MEMBERS_MAX];
};

static void spec_free(struct spec *spec) {
  for (size_t i = 0; i < spec->kind.param_count; i++)
    matrix_free(&spec->params[i].tensor);
}

static bool is_number(const attn_param_info *info) {
  return info->kind == ATTN_PARAM_NUMBER || info->kind == ATTN_PARAM_COUNT;
}

static bool unknown_type(struct scan *scan, const struct family *family, const char *name) {
  char known[PROBLEM_DETAIL_MAX] = "";
  size_t length = 0;
  struct kind kind;
  for (size_t i = 0; kind = family->at(i), kind.name && length < sizeof known; i++)
    length +=
        (size_t)snprintf(known + length, sizeof known - length, "%s%s", i ? ", " : "", kind.name);
  return scan_fault(scan, family->unknown, "expected one of %s, got \"%s\"", known, name);
}

/* The string at the scan as the name of a kind. */
static bool read_type(struct scan *scan, const struct family *family, struct spec *spec) {
  json_t *type = scan_load(scan, SCAN_STRING);
  if (!type) return false;
  struct kind *kind = &spec->kind;
  for (size_t i = 0; *kind = family->at(i), kind->name; i++)
    if (scan_is_word(type, kind->name)) break;
  if (!kind->name) unknown_type(scan, family, json_string_value(type));
  json_decref(type);
  assert(kind->param_count < MEMBERS_MAX);
  for (size_t i = 0; i < kind->param_count; i++)
    spec->params[i].info = &kind->params[i];
  return kind->name;
}

/* Looks through the object at the scan for its type; the scan stays. */
static bool find_type(const struct scan *scan, const struct family *family, struct spec *spec) {
  struct scan probe = *scan;
  const int found = scan_find(&probe, "type");
  if (found == SCAN_CLOSED) return scan_missing(&probe, family->noun, "type");
  return found != SCAN_FAULT && read_type(&probe, family, spec);
}

static bool pass_type(struct scan *scan, void *to) {
  (void)to;
  return scan_string(scan, NULL, 0, NULL);
}

static bool read_param(struct scan *scan, void *to) {
  struct param *param = to;
  param->given = true;
  if (is_number(param->info)) return scan_double(scan, &param->number);
  return param->info->kind == ATTN_PARAM_VECTOR ? tensor_read_vector(scan, &param->tensor)
                                                : tensor_read_matrix(scan, &param->tensor);
}

static bool read_object(struct scan *scan, const struct family *family, struct spec *spec) {
  if (!find_type(scan, family, spec)) return false;
  struct scan_field fields[MEMBERS_MAX] = {{.name = "type", .read = pass_type}};
  for (size_t i = 0; i < spec->kind.param_count; i++)
    fields[i + 1] = (struct scan_field){.name = spec->params[i].info->name,
                                        .read = read_param,
                                        .offset = offsetof(struct spec, params[i])};
  char what[96];
  snprintf(what, sizeof what, "the %s %s", family->noun, spec->kind.name);
  const struct scan_table table = {what, fields, spec->kind.param_count + 1};
  return scan_members(scan, &table, spec, NULL);
}

/* ---- Tensors from beside the JSON ---- */

static struct param *find_param(struct spec *spec, const char *name) {
  for (size_t i = 0; i < spec->kind.param_count; i++)
    if (strcmp(spec->params[i].info->name, name) == 0) return &spec->params[i];
  return NULL;
}

static bool take_tensor(struct scan *scan, struct named_tensor *item, const char *name,
                        struct spec *spec) {
  struct problem *problem = scan->problem;
  struct param *param = find_param(spec, name);
  if (!param)
    return named_tensor_fault(item, problem, PROBLEM_UNKNOWN_MEMBER, "%s has no parameter \"%s\"",
                              spec->kind.name, name);
  if (is_number(param->info))
    return named_tensor_fault(item, problem, PROBLEM_INVALID_TYPE,
                              "%s of %s is a number of the JSON, not a tensor", name,
                              spec->kind.name);
  if (param->given)
    return named_tensor_fault(item, problem, PROBLEM_INVALID_TENSORS,
                              "it is given as a tensor, and in the JSON too");
  if (item->count == 0)
    return named_tensor_fault(item, problem, PROBLEM_SHAPE_MISMATCH,
                              "expected at least one number");
  param->given = param->binary = true;
  return named_tensor_take(item, param->info->kind == ATTN_PARAM_VECTOR ? 1 : 2, &param->tensor,
                           problem);
}

/* Those named after the family: "score.w". */
static bool take_tensors(struct scan *scan, const struct family *family, struct spec *spec) {
  const size_t length = strlen(family->noun);
  for (size_t i = 0; scan->tensors && i < scan->tensors->count; i++) {
    struct named_tensor *item = &scan->tensors->items[i];
    if (strncmp(item->name, family->noun, length) != 0 || item->name[length] != '.') continue;
    if (!take_tensor(scan, item, item->name + length + 1, spec)) return false;
  }
  return true;
}

/* ---- All together ---- */

static bool check_required(struct scan *scan, const struct spec *spec) {
  for (size_t i = 0; i < spec->kind.param_count; i++) {
    const attn_param_info *info = spec->params[i].info;
    if (!info->required || spec->params[i].given) continue;
    scan_enter_name(scan, info->name);
    return scan_fault(scan, PROBLEM_MISSING_MEMBER, "%s needs \"%s\" [%s]", spec->kind.name,
                      info->name, info->shape);
  }
  return true;
}

/* What the library makes of it, or thinks of it. The scan is behind the value,
 * and its pointer the value's. */
static bool create(struct scan *scan, const struct family *family, struct spec *spec, void *to) {
  attn_argument arguments[MEMBERS_MAX];
  attn_fault fault = {"", ""};
  size_t count = 0;
  for (size_t i = 0; i < spec->kind.param_count; i++) {
    const struct param *param = &spec->params[i];
    if (param->given)
      arguments[count++] = (attn_argument){.name = param->info->name,
                                           .number = param->number,
                                           .data = param->tensor.data,
                                           .rows = param->tensor.rows,
                                           .cols = param->tensor.cols};
  }
  const attn_status status = family->create(to, spec->kind.name, arguments, count, &fault);
  if (status == ATTN_OK) return true;
  if (status == ATTN_NO_MEMORY) return problem_set_status(scan->problem, status, "");
  const struct param *param = find_param(spec, fault.parameter);
  const size_t end = strlen(scan->pointer);
  if (fault.parameter[0]) scan_enter_name(scan, fault.parameter);
  /* "/score/w" is a place of the JSON, "/score.w" the name of a tensor */
  if (param && param->binary && scan->pointer[end] == '/') scan->pointer[end] = '.';
  return scan_fault(scan, PROBLEM_INVALID_PARAMETER, "%s", fault.detail);
}

static bool read_spec(struct scan *scan, const struct family *family, void *to) {
  struct spec spec = {.kind = {.name = NULL}};
  const enum scan_kind kind = scan_kind(scan);
  bool read;
  if (kind == SCAN_STRING)
    read = read_type(scan, family, &spec);
  else if (kind == SCAN_OBJECT)
    read = read_object(scan, family, &spec);
  else
    read = scan_wrong_type(scan, "a string or an object");
  read = read && take_tensors(scan, family, &spec) && check_required(scan, &spec) &&
         create(scan, family, &spec, to);
  spec_free(&spec);
  return read;
}

bool spec_read_score(struct scan *scan, void *to) {
  return read_spec(scan, &score_family, to);
}

bool spec_read_normalization(struct scan *scan, void *to) {
  return read_spec(scan, &normalization_family, to);
}
