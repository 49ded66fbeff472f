/* Scores and normalizations differ in their tables and in nothing else, so one
 * reader serves both, through a struct family.
 *
 * Members have no order in JSON, but what a parameter means depends on "type".
 * So an object is walked twice: first for its type, stopping there, which is at
 * once where the type is written first; then for the parameters. Reading
 * parameters before their type is known was rejected: their kinds would have to
 * be guessed, and faults be said long after their place. */
#include "codec/spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "codec/tensor.h"

/* "type" and parameters. */
enum { MEMBERS_MAX = 1 + ATTN_PARAMS_MAX, TYPE_NAME_MAX = 64 };

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
};

static struct kind score_at(size_t index) {
  const attn_score_info *info = attn_score_info_at(index);
  return info ? (struct kind){info->name, info->params, info->param_count} : (struct kind){0};
}

static struct kind normalization_at(size_t index) {
  const attn_normalization_info *info = attn_normalization_info_at(index);
  return info ? (struct kind){info->name, info->params, info->param_count} : (struct kind){0};
}

static const struct family score_family = {"score", PROBLEM_UNKNOWN_SCORE, score_at};
static const struct family normalization_family = {"normalization", PROBLEM_UNKNOWN_NORMALIZATION,
                                                   normalization_at};

/* What was read, ready for the library. */
struct spec {
  struct kind kind;
  attn_argument args[MEMBERS_MAX];
  struct matrix tensors[MEMBERS_MAX]; /* behind args[i].data */
  bool binary[MEMBERS_MAX];           /* it was no part of the JSON */
  size_t count;
};

static void spec_free(struct spec *spec) {
  for (size_t i = 0; i < spec->count; i++)
    matrix_free(&spec->tensors[i]);
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
static bool read_type(struct scan *scan, const struct family *family, struct kind *kind) {
  char name[TYPE_NAME_MAX + 1];
  size_t length;
  if (!scan_string(scan, name, TYPE_NAME_MAX, &length)) return false;
  name[length < TYPE_NAME_MAX ? length : utf8_whole(name, TYPE_NAME_MAX)] = '\0';
  for (size_t i = 0; *kind = family->at(i), kind->name; i++)
    if (strlen(kind->name) == length && memcmp(kind->name, name, length) == 0) return true;
  return unknown_type(scan, family, name);
}

/* Looks through the object at the scan for its type; the scan stays. */
static bool find_type(const struct scan *scan, const struct family *family, struct kind *kind) {
  static const char *const names[] = {"type"};
  struct scan probe = *scan;
  struct scan_object object = {.what = family->noun, .names = names, .count = 1, .others = true};
  const char *start;
  size_t length;
  if (!scan_open(&probe, '{')) return false;
  int member;
  while ((member = scan_member(&probe, &object)) > 0)
    if (!scan_skip(&probe, &start, &length)) return false;
  if (member == 0) return read_type(&probe, family, kind);
  return member == SCAN_CLOSED && scan_missing(&probe, &object, 0);
}

static bool read_param(struct scan *scan, const attn_param_info *info, struct spec *spec) {
  attn_argument *arg = &spec->args[spec->count];
  struct matrix *tensor = &spec->tensors[spec->count];
  *arg = (attn_argument){.name = info->name};
  *tensor = (struct matrix){0};
  spec->count++;
  if (info->kind == ATTN_PARAM_NUMBER || info->kind == ATTN_PARAM_COUNT)
    return scan_double(scan, &arg->number);
  if (info->kind == ATTN_PARAM_VECTOR ? !tensor_read_vector(scan, tensor)
                                      : !tensor_read_matrix(scan, tensor))
    return false;
  arg->data = tensor->data;
  arg->rows = tensor->rows;
  arg->cols = tensor->cols;
  return true;
}

static bool read_object(struct scan *scan, const struct family *family, struct spec *spec) {
  if (!find_type(scan, family, &spec->kind)) return false;
  const struct kind *kind = &spec->kind;
  char what[TYPE_NAME_MAX + 32];
  snprintf(what, sizeof what, "the %s %s", family->noun, kind->name);
  const char *names[MEMBERS_MAX] = {"type"};
  for (size_t i = 0; i < kind->param_count; i++)
    names[i + 1] = kind->params[i].name;
  struct scan_object object = {.what = what, .names = names, .count = kind->param_count + 1};
  if (!scan_open(scan, '{')) return false;
  int member;
  while ((member = scan_member(scan, &object)) >= 0)
    if (member == 0 ? !scan_string(scan, NULL, 0, NULL)
                    : !read_param(scan, &kind->params[member - 1], spec))
      return false;
  return member == SCAN_CLOSED;
}

/* ---- Tensors from beside the JSON ---- */

static const attn_param_info *find_param(const struct kind *kind, const char *name) {
  for (size_t i = 0; i < kind->param_count; i++)
    if (strcmp(kind->params[i].name, name) == 0) return &kind->params[i];
  return NULL;
}

static bool is_given(const struct spec *spec, const char *name) {
  for (size_t i = 0; i < spec->count; i++)
    if (strcmp(spec->args[i].name, name) == 0) return true;
  return false;
}

static bool take_tensor(struct scan *scan, struct named_tensor *item, const char *param,
                        struct spec *spec) {
  struct problem *problem = scan->problem;
  const attn_param_info *info = find_param(&spec->kind, param);
  if (!info)
    return named_tensor_fault(item, problem, PROBLEM_UNKNOWN_MEMBER, "%s has no parameter \"%s\"",
                              spec->kind.name, param);
  if (info->kind == ATTN_PARAM_NUMBER || info->kind == ATTN_PARAM_COUNT)
    return named_tensor_fault(item, problem, PROBLEM_INVALID_TYPE,
                              "%s of %s is a number of the JSON, not a tensor", param,
                              spec->kind.name);
  if (is_given(spec, param))
    return named_tensor_fault(item, problem, PROBLEM_INVALID_TENSORS,
                              "it is given as a tensor, and in the JSON too");
  if (item->count == 0)
    return named_tensor_fault(item, problem, PROBLEM_SHAPE_MISMATCH,
                              "expected at least one number");
  struct matrix *tensor = &spec->tensors[spec->count];
  if (!named_tensor_take(item, info->kind == ATTN_PARAM_VECTOR ? 1 : 2, tensor, problem))
    return false;
  spec->args[spec->count] = (attn_argument){
      .name = info->name, .data = tensor->data, .rows = tensor->rows, .cols = tensor->cols};
  spec->binary[spec->count++] = true;
  return true;
}

/* Those named after the family: "score.w". */
static bool take_tensors(struct scan *scan, const struct family *family, struct tensor_set *tensors,
                         struct spec *spec) {
  const size_t length = strlen(family->noun);
  for (size_t i = 0; tensors && i < tensors->count; i++) {
    struct named_tensor *item = &tensors->items[i];
    if (strncmp(item->name, family->noun, length) != 0 || item->name[length] != '.') continue;
    if (!take_tensor(scan, item, item->name + length + 1, spec)) return false;
  }
  return true;
}

/* ---- All together ---- */

static bool check_required(struct scan *scan, const struct spec *spec) {
  for (size_t i = 0; i < spec->kind.param_count; i++) {
    const attn_param_info *info = &spec->kind.params[i];
    if (!info->required || is_given(spec, info->name)) continue;
    scan_enter_name(scan, info->name);
    return scan_fault(scan, PROBLEM_MISSING_MEMBER, "%s needs \"%s\" [%s]", spec->kind.name,
                      info->name, info->shape);
  }
  return true;
}

static bool read_spec(struct scan *scan, const struct family *family, struct tensor_set *tensors,
                      struct spec *spec) {
  enum scan_kind kind = scan_kind(scan);
  bool read;
  if (kind == SCAN_STRING)
    read = read_type(scan, family, &spec->kind);
  else if (kind == SCAN_OBJECT)
    read = read_object(scan, family, spec);
  else
    read = scan_wrong_type(scan, "a string or an object");
  return read && take_tensors(scan, family, tensors, spec) && check_required(scan, spec);
}

/* What the library thinks of it. The scan is behind the value, and its pointer
 * the value's. */
static bool accepted(struct scan *scan, const struct spec *spec, attn_status status,
                     const attn_fault *fault) {
  if (status == ATTN_OK) return true;
  if (status == ATTN_NO_MEMORY) return problem_set_status(scan->problem, status, "");
  bool binary = false;
  for (size_t i = 0; i < spec->count; i++)
    if (strcmp(spec->args[i].name, fault->parameter) == 0) binary = spec->binary[i];
  const size_t end = strlen(scan->pointer);
  if (fault->parameter[0]) scan_enter_name(scan, fault->parameter);
  /* "/score/w" is a place of the JSON, "/score.w" the name of a tensor */
  if (binary && scan->pointer[end] == '/') scan->pointer[end] = '.';
  return scan_fault(scan, PROBLEM_INVALID_PARAMETER, "%s", fault->detail);
}

bool spec_read_score(struct scan *scan, struct tensor_set *tensors, attn_score **score) {
  struct spec spec = {.count = 0};
  attn_fault fault = {"", ""};
  bool read =
      read_spec(scan, &score_family, tensors, &spec) &&
      accepted(scan, &spec, attn_score_create(score, spec.kind.name, spec.args, spec.count, &fault),
               &fault);
  spec_free(&spec);
  return read;
}

bool spec_read_normalization(struct scan *scan, attn_normalization **normalization) {
  struct spec spec = {.count = 0};
  attn_fault fault = {"", ""};
  bool read = read_spec(scan, &normalization_family, NULL, &spec) &&
              accepted(scan, &spec,
                       attn_normalization_create(normalization, spec.kind.name, spec.args,
                                                 spec.count, &fault),
                       &fault);
  spec_free(&spec);
  return read;
}
