/* The option `memories`: what to load at start, from which file, and how.
 *
 * Everything that can be known without the files is checked by preload_parse(),
 * which --check-config runs too: names, members, that a score fits the columns.
 * The files are opened by preload_read() alone, when the daemon loads. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/config_file.h"
#include "codec/csv.h"
#include "codec/file.h"
#include "codec/npy.h"
#include "codec/scan.h"
#include "codec/spec.h"
#include "codec/tensor_body.h"

/* The operator's own file; a limit all the same, for those that never end. */
#define JSON_BYTES_MAX ((size_t)16 << 30)

#define CHUNK          ((size_t)256 << 10) /* of a file that is read by stream */

/* The contract's rule for names of memories. */
#define NAME_MAX_LENGTH 128
#define PATH_BYTES_MAX  4095
#define NAME_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

/* By the files' endings. */
enum format { JSON, CSV, SAFETENSORS, NPY };

/* A memory to load, and its draft while the option is read. */
struct spec {
  char *name, *path; /* until they are the preload's */
  char *values_path; /* for NPY */
  char *keys_path;   /* for NPY, until it is the preload's path */
  enum format format;
  struct csv_plan plan; /* for CSV */
  struct memory_override override;
};

/* ---- Members ---- */

/* A text of at most `most` bytes without NUL, to be freed. */
static bool read_text(struct scan *scan, size_t most, char **text) {
  json_t *value = scan_load(scan, SCAN_STRING);
  if (!value) return false;
  const size_t length = json_string_length(value);
  bool read = false;
  if (length == 0 || length > most)
    scan_fault(scan, PROBLEM_INVALID_PARAMETER, "expected 1 to %zu bytes, got %zu", most, length);
  else if (strlen(json_string_value(value)) != length)
    scan_fault(scan, PROBLEM_INVALID_PARAMETER, "the text has a NUL in it");
  else if (!(*text = strdup(json_string_value(value))))
    problem_set_status(scan->problem, ATTN_NO_MEMORY, "");
  else
    read = true;
  json_decref(value);
  return read;
}

static bool read_name(struct scan *scan, void *to) {
  char **name = to;
  if (!read_text(scan, NAME_MAX_LENGTH, name)) return false;
  if ((*name)[0] != '.' && (*name)[strspn(*name, NAME_CHARACTERS)] == '\0') return true;
  return scan_fault(scan, PROBLEM_INVALID_NAME,
                    "a name is made of A-Z a-z 0-9 . _ - and does not start with '.'");
}

/* And has something in front of it. */
static bool ends_with(const char *text, const char *end) {
  size_t length = strlen(text), end_length = strlen(end);
  return length > end_length && strcmp(text + length - end_length, end) == 0;
}

static bool find_format(const char *path, enum format *format) {
  static const char *const endings[] = {
      [JSON] = ".json", [CSV] = ".csv", [SAFETENSORS] = ".safetensors"};
  for (*format = JSON; *format <= SAFETENSORS; ++*format)
    if (ends_with(path, endings[*format])) return true;
  return false;
}

static bool read_path(struct scan *scan, void *path) {
  enum format format;
  if (!read_text(scan, PATH_BYTES_MAX, path)) return false;
  return find_format(*(char **)path, &format) ||
         scan_fault(scan, PROBLEM_INVALID_PARAMETER,
                    "expected a file that ends in .json, .csv or .safetensors");
}

static bool read_npy_path(struct scan *scan, char **path) {
  if (!read_text(scan, PATH_BYTES_MAX, path)) return false;
  return ends_with(*path, ".npy") ||
         scan_fault(scan, PROBLEM_INVALID_PARAMETER, "expected a file that ends in .npy");
}

/* [first, end), not empty. */
static bool read_range(struct scan *scan, size_t most, size_t *first, size_t *end) {
  size_t bounds[2], count = 0;
  int more;
  if (!scan_open(scan, '[')) return false;
  while ((more = scan_element(scan, count)) > 0 && count < 2) {
    size_t outer = scan_enter_index(scan, count);
    if (!scan_whole(scan, 0, most, &bounds[count++])) return false;
    scan_leave(scan, outer);
  }
  if (more == SCAN_FAULT) return false;
  if (more != SCAN_CLOSED || count != 2 || bounds[0] >= bounds[1])
    return scan_fault(scan, PROBLEM_INVALID_PARAMETER,
                      "expected [first, end], two whole numbers, the first one less");
  *first = bounds[0];
  *end = bounds[1];
  return true;
}

static bool read_rows(struct scan *scan, void *to) {
  struct csv_plan *plan = to;
  return read_range(scan, (size_t)1 << 53, &plan->first_row, &plan->end_row);
}

static bool read_column_range(struct scan *scan, void *to) {
  struct csv_columns *columns = to;
  return read_range(scan, ATTN_MAX_DIM, &columns->first, &columns->end);
}

static bool read_scale(struct scan *scan, void *scale) {
  return scan_double(scan, scale);
}

static bool read_one_hot(struct scan *scan, void *one_hot) {
  return scan_whole(scan, 1, ATTN_MAX_DIM, one_hot);
}

/* {"columns":[first,end],"scale":s,"one_hot":n}; one_hot for values alone. */
static bool read_columns(struct scan *scan, bool values, struct csv_columns *columns) {
  static const struct scan_field fields[] = {
      {"columns", read_column_range, 0, true},
      {"scale", read_scale, offsetof(struct csv_columns, scale), false},
      {"one_hot", read_one_hot, offsetof(struct csv_columns, one_hot), false}};
  const struct scan_table table = {values ? "values" : "keys", fields, values ? 3 : 2};
  uint32_t seen;
  *columns = (struct csv_columns){.scale = 1};
  if (!scan_members(scan, &table, columns, &seen)) return false;
  if (columns->one_hot && (columns->end - columns->first != 1 || seen & 2))
    return scan_fault(scan, PROBLEM_INVALID_PARAMETER, "one_hot goes with one column and no scale");
  return true;
}

/* Columns of the one file, or a file of their own. */
static bool read_keys(struct scan *scan, void *to) {
  struct spec *spec = to;
  return scan_kind(scan) == SCAN_STRING ? read_npy_path(scan, &spec->keys_path)
                                        : read_columns(scan, false, &spec->plan.keys);
}

static bool read_values(struct scan *scan, void *to) {
  struct spec *spec = to;
  return scan_kind(scan) == SCAN_STRING ? read_npy_path(scan, &spec->values_path)
                                        : read_columns(scan, true, &spec->plan.values);
}

static bool read_column(struct scan *scan, void *column) {
  return scan_whole(scan, 0, ATTN_MAX_DIM, column);
}

static bool read_id_column(struct scan *scan, void *to) {
  static const struct scan_field field = {"column", read_column,
                                          offsetof(struct csv_plan, id_column), true};
  static const struct scan_table table = {"ids", &field, 1};
  ((struct csv_plan *)to)->has_ids = true;
  return scan_members(scan, &table, to, NULL);
}

/* ---- Memories ---- */

enum { NAME, PATH, ROWS, KEYS, VALUES, IDS, SCORE, NORMALIZATION, MEMBERS };

static const struct scan_field memory_fields[MEMBERS] = {
    [NAME] = {"name", read_name, offsetof(struct spec, name), true},
    [PATH] = {"file", read_path, offsetof(struct spec, path), false},
    [ROWS] = {"rows", read_rows, offsetof(struct spec, plan), false},
    [KEYS] = {"keys", read_keys, 0, false},
    [VALUES] = {"values", read_values, 0, false},
    [IDS] = {"ids", read_id_column, offsetof(struct spec, plan), false},
    [SCORE] = {"score", spec_read_score, offsetof(struct spec, override.score), false},
    [NORMALIZATION] = {"normalization", spec_read_normalization,
                       offsetof(struct spec, override.normalization), false}};

static const struct scan_table memory_table = {"a memory to load", memory_fields, MEMBERS};

struct parsing {
  struct scan scan;
  const char *folder;
  struct preload_list *list;
  size_t capacity;
};

static bool missing(struct scan *scan, unsigned member) {
  return scan_missing(scan, memory_table.what, memory_fields[member].name);
}

static bool misplaced(struct scan *scan, unsigned member, const char *why) {
  scan_enter_name(scan, memory_fields[member].name);
  return scan_fault(scan, PROBLEM_INVALID_PARAMETER, "%s", why);
}

/* Two files of arrays; nothing in them is to be chosen. */
static bool check_npy(struct scan *scan, uint32_t seen, struct spec *spec) {
  if (seen >> PATH & 1)
    return misplaced(scan, PATH, "the rows come from .npy files, or from this one");
  for (unsigned member = KEYS; member <= VALUES; member++) {
    if (!(seen >> member & 1)) return missing(scan, member);
    if (!(member == KEYS ? spec->keys_path : spec->values_path))
      return misplaced(scan, member, "expected a file that ends in .npy");
  }
  spec->format = NPY;
  spec->path = spec->keys_path;
  spec->keys_path = NULL;
  return true;
}

/* What the members have to do with one another. */
static bool check_spec(struct scan *scan, uint32_t seen, struct spec *spec) {
  if (spec->keys_path || spec->values_path) {
    if (!check_npy(scan, seen, spec)) return false;
  } else if (!spec->path) {
    return missing(scan, PATH);
  } else {
    find_format(spec->path, &spec->format);
  }
  for (unsigned member = ROWS; member <= IDS; member++) {
    const bool given = seen >> member & 1, columns = member == KEYS || member == VALUES;
    if (given && spec->format != CSV && !(spec->format == NPY && columns))
      return misplaced(scan, member, "this goes with .csv files alone");
    if (!given && spec->format == CSV && columns) return missing(scan, member);
  }
  const struct csv_columns *keys = &spec->plan.keys;
  if (spec->format != CSV || !spec->override.score ||
      attn_score_query_dim(spec->override.score, keys->end - keys->first) > 0)
    return true;
  scan_enter_name(scan, memory_fields[SCORE].name);
  return scan_fault(scan, PROBLEM_SHAPE_MISMATCH, "its matrices do not fit keys of %zu numbers",
                    keys->end - keys->first);
}

static bool check_name(struct scan *scan, const struct preload_list *list, const char *name) {
  for (size_t i = 0; i + 1 < list->count; i++)
    if (strcmp(list->items[i].name, name) == 0) {
      scan_enter_name(scan, memory_fields[NAME].name);
      return scan_fault(scan, PROBLEM_INVALID_NAME, "\"%s\" is loaded by memories/%zu already",
                        name, i);
    }
  return true;
}

/* The path as seen from the folder. */
static bool resolve(struct scan *scan, const char *folder, char **path) {
  char *resolved;
  if (!*path || (*path)[0] == '/' || folder[0] == '\0') return true;
  const char *slash = folder[strlen(folder) - 1] != '/' ? "/" : "";
  if (asprintf(&resolved, "%s%s%s", folder, slash, *path) < 0)
    return problem_set_status(scan->problem, ATTN_NO_MEMORY, "");
  free(*path);
  *path = resolved;
  return true;
}

/* One more, with nothing in it. */
static struct preload *push_preload(struct parsing *parsing) {
  struct preload_list *list = parsing->list;
  if (list->count == parsing->capacity) {
    size_t capacity = parsing->capacity ? 2 * parsing->capacity : 8;
    struct preload *items = realloc(list->items, capacity * sizeof *items);
    if (!items) return NULL;
    list->items = items;
    parsing->capacity = capacity;
  }
  struct spec *spec = calloc(1, sizeof *spec);
  if (!spec) return NULL;
  spec->plan.end_row = SIZE_MAX;
  list->items[list->count] = (struct preload){.spec = spec};
  return &list->items[list->count++];
}

static bool read_preload(struct parsing *parsing) {
  struct scan *scan = &parsing->scan;
  uint32_t seen;
  struct preload *preload = push_preload(parsing);
  if (!preload) return problem_set_status(scan->problem, ATTN_NO_MEMORY, "");
  struct spec *spec = preload->spec;
  if (!scan_members(scan, &memory_table, spec, &seen) || !check_spec(scan, seen, spec) ||
      !resolve(scan, parsing->folder, &spec->path) ||
      !resolve(scan, parsing->folder, &spec->values_path))
    return false;
  preload->name = spec->name;
  preload->path = spec->path;
  spec->name = spec->path = NULL;
  return check_name(scan, parsing->list, preload->name);
}

static bool read_preloads(struct parsing *parsing) {
  if (!scan_open(&parsing->scan, '[')) return false;
  int more;
  while ((more = scan_element(&parsing->scan, parsing->list->count)) > 0) {
    size_t outer = scan_enter_index(&parsing->scan, parsing->list->count);
    if (!read_preload(parsing)) return false;
    scan_leave(&parsing->scan, outer);
  }
  return more == SCAN_CLOSED;
}

bool preload_parse(const char *json, const char *folder, struct preload_list *list, char *error,
                   size_t error_size) {
  *list = (struct preload_list){.items = NULL};
  struct problem problem;
  struct parsing parsing = {.folder = folder, .list = list};
  scan_begin(&parsing.scan, json, strlen(json), &problem);
  if (scan_end(&parsing.scan, read_preloads(&parsing))) return true;
  snprintf(error, error_size, "memories%s: %s", problem.pointer, problem.detail);
  preload_free(list);
  return false;
}

void preload_free(struct preload_list *list) {
  for (size_t i = 0; i < list->count; i++) {
    struct spec *spec = list->items[i].spec;
    attn_score_free(spec->override.score);
    attn_normalization_free(spec->override.normalization);
    free(spec->name);
    free(spec->path);
    free(spec->keys_path);
    free(spec->values_path);
    free(spec);
    free(list->items[i].name);
    free(list->items[i].path);
  }
  free(list->items);
  *list = (struct preload_list){.items = NULL};
}

/* ---- Files ---- */

static bool fail(const struct preload *preload, const struct problem *problem, char *error,
                 size_t error_size) {
  snprintf(error, error_size, "%s: %s%s%s", preload->path, problem->pointer,
           problem->pointer[0] ? ": " : "", problem->detail);
  return false;
}

static bool read_json(const struct preload *preload, struct memory_body *body, char *error,
                      size_t error_size) {
  const struct spec *spec = preload->spec;
  struct problem problem;
  struct buffer text;
  buffer_init(&text, JSON_BYTES_MAX);
  bool read = file_read(preload->path, &text, error, error_size);
  if (read &&
      !body_parse_memory_as(&spec->override, buffer_text(&text), text.length, body, &problem))
    read = fail(preload, &problem, error, error_size);
  buffer_free(&text);
  return read;
}

static bool read_csv(const struct preload *preload, struct memory_body *body, char *error,
                     size_t error_size) {
  const struct spec *spec = preload->spec;
  struct problem problem;
  struct csv_rows rows;
  if (!csv_read(preload->path, &spec->plan, &rows, error, error_size)) return false;
  *body = (struct memory_body){.keys = rows.keys, .values = rows.values, .ids = rows.ids};
  if (memory_body_settle(body, &spec->override, &problem)) return true;
  memory_body_free(body);
  return fail(preload, &problem, error, error_size);
}

/* By stream: the numbers are held once. */
static bool feed_file(FILE *file, const struct preload *preload, struct tensor_upload *upload,
                      char *error, size_t error_size) {
  struct problem problem;
  char *chunk = malloc(CHUNK);
  bool fed = chunk != NULL;
  if (!chunk) snprintf(error, error_size, "%s: out of memory", preload->path);
  size_t count;
  while (fed && (count = fread(chunk, 1, CHUNK, file)) > 0)
    if (!tensor_upload_feed(upload, chunk, count, &problem))
      fed = fail(preload, &problem, error, error_size);
  free(chunk);
  if (fed && ferror(file)) {
    snprintf(error, error_size, "%s: it can't be read to its end", preload->path);
    fed = false;
  }
  return fed;
}

static bool read_tensors(const struct preload *preload, struct memory_body *body, char *error,
                         size_t error_size) {
  const struct spec *spec = preload->spec;
  const struct tensor_upload_options options = {.kind = BODY_MEMORY, .override = spec->override};
  struct problem problem;
  FILE *file = file_open(preload->path, error, error_size);
  if (!file) return false;
  struct tensor_upload *upload = tensor_upload_create(&options);
  bool read = upload != NULL;
  if (!upload) snprintf(error, error_size, "%s: out of memory", preload->path);
  read = read && feed_file(file, preload, upload, error, error_size);
  if (read && !tensor_upload_finish_memory(upload, body, &problem))
    read = fail(preload, &problem, error, error_size);
  tensor_upload_free(upload);
  fclose(file);
  return read;
}

static bool read_arrays(const struct preload *preload, struct memory_body *body, char *error,
                        size_t error_size) {
  const struct spec *spec = preload->spec;
  struct problem problem;
  bool read = npy_read(preload->path, false, &body->keys, error, error_size) &&
              npy_read(spec->values_path, true, &body->values, error, error_size);
  if (read && !memory_body_settle(body, &spec->override, &problem))
    read = fail(preload, &problem, error, error_size);
  if (!read) memory_body_free(body);
  return read;
}

bool preload_read(const struct preload *preload, struct memory_body *body, char *error,
                  size_t error_size) {
  const struct spec *spec = preload->spec;
  *body = (struct memory_body){.ids = NULL};
  switch (spec->format) {
  case JSON:
    return read_json(preload, body, error, error_size);
  case CSV:
    return read_csv(preload, body, error, error_size);
  case SAFETENSORS:
    return read_tensors(preload, body, error, error_size);
  case NPY:
    return read_arrays(preload, body, error, error_size);
  }
  return false;
}
