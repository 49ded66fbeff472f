/* The option `memories`: what to load at start, from which file, and how.
 *
 * Everything that can be known without the files is checked by preload_parse(),
 * which --check-config runs too: names, members, that a score fits the columns.
 * The files are opened by preload_read() alone, when the daemon loads. */
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

struct spec {
  enum format format;
  struct csv_plan plan; /* for CSV */
  char *keys_path;      /* for NPY, until it is preload->path */
  char *values_path;    /* for NPY */
  struct memory_override override;
};

enum { NAME, PATH, ROWS, KEYS, VALUES, IDS, SCORE, NORMALIZATION, MEMBERS };

static const char *const names[MEMBERS] = {"name",   "file", "rows",  "keys",
                                           "values", "ids",  "score", "normalization"};

/* ---- Members ---- */

/* A text of at most `most` bytes without NUL, to be freed. */
static bool read_text(struct scan *scan, size_t most, char **text) {
  struct scan probe = *scan;
  size_t length;
  if (!scan_string(&probe, NULL, 0, &length)) return false;
  if (length == 0 || length > most)
    return scan_fault(scan, PROBLEM_INVALID_PARAMETER, "expected 1 to %zu bytes, got %zu", most,
                      length);
  *text = malloc(length + 1);
  if (!*text) return problem_set_status(scan->problem, ATTN_NO_MEMORY, "");
  scan_string(scan, *text, length, NULL);
  (*text)[length] = '\0';
  if (strlen(*text) == length) return true;
  return scan_fault(scan, PROBLEM_INVALID_PARAMETER, "the text has a NUL in it");
}

static bool read_name(struct scan *scan, char **name) {
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

/* The path as seen from the folder, to be freed. */
static bool resolve(struct scan *scan, const char *folder, const char *file, char **path) {
  bool relative = file[0] != '/' && folder[0] != '\0';
  const char *slash = relative && folder[strlen(folder) - 1] != '/' ? "/" : "";
  if (asprintf(path, "%s%s%s", relative ? folder : "", slash, file) >= 0) return true;
  *path = NULL;
  return problem_set_status(scan->problem, ATTN_NO_MEMORY, "");
}

static bool read_path(struct scan *scan, const char *folder, char **path, struct spec *spec) {
  static const struct {
    const char *ending;
    enum format format;
  } formats[] = {{".json", JSON}, {".csv", CSV}, {".safetensors", SAFETENSORS}};
  char *file = NULL;
  bool read = read_text(scan, PATH_BYTES_MAX, &file), known = false;
  for (size_t i = 0; read && i < sizeof formats / sizeof formats[0]; i++)
    if (ends_with(file, formats[i].ending)) {
      spec->format = formats[i].format;
      known = true;
    }
  if (read && !known)
    read = scan_fault(scan, PROBLEM_INVALID_PARAMETER,
                      "expected a file that ends in .json, .csv or .safetensors");
  read = read && resolve(scan, folder, file, path);
  free(file);
  return read;
}

static bool read_npy_path(struct scan *scan, const char *folder, char **path) {
  char *file = NULL;
  bool read = read_text(scan, PATH_BYTES_MAX, &file);
  if (read && !ends_with(file, ".npy"))
    read = scan_fault(scan, PROBLEM_INVALID_PARAMETER, "expected a file that ends in .npy");
  read = read && resolve(scan, folder, file, path);
  free(file);
  return read;
}

/* [first, end), not empty. */
static bool read_range(struct scan *scan, double most, size_t *first, size_t *end) {
  double bounds[2] = {0, 0};
  size_t count = 0;
  int more;
  if (!scan_open(scan, '[')) return false;
  while ((more = scan_element(scan, count)) > 0) {
    if (count == 2) break;
    size_t outer = scan_enter_index(scan, count);
    if (!scan_whole(scan, 0, most, &bounds[count])) return false;
    scan_leave(scan, outer);
    count++;
  }
  if (more == SCAN_FAULT) return false;
  if (more != SCAN_CLOSED || count != 2 || bounds[0] >= bounds[1])
    return scan_fault(scan, PROBLEM_INVALID_PARAMETER,
                      "expected [first, end], two whole numbers, the first one less");
  *first = (size_t)bounds[0];
  *end = (size_t)bounds[1];
  return true;
}

static bool read_one_hot(struct scan *scan, size_t *one_hot) {
  double number;
  if (!scan_whole(scan, 1, (double)ATTN_MAX_DIM, &number)) return false;
  *one_hot = (size_t)number;
  return true;
}

/* {"columns":[first,end],"scale":s,"one_hot":n}; one_hot for values alone. */
static bool read_columns(struct scan *scan, bool values, struct csv_columns *columns) {
  static const char *const column_names[] = {"columns", "scale", "one_hot"};
  struct scan_object object = {
      .what = names[values ? VALUES : KEYS], .names = column_names, .count = values ? 3 : 2};
  *columns = (struct csv_columns){.scale = 1};
  if (!scan_open(scan, '{')) return false;
  bool read = true;
  int member = SCAN_FAULT;
  while (read && (member = scan_member(scan, &object)) >= 0)
    read = member == 0   ? read_range(scan, (double)ATTN_MAX_DIM, &columns->first, &columns->end)
           : member == 1 ? scan_double(scan, &columns->scale)
                         : read_one_hot(scan, &columns->one_hot);
  if (!read || member != SCAN_CLOSED) return false;
  if (!(object.seen & 1)) return scan_missing(scan, &object, 0);
  if (columns->one_hot && (columns->end - columns->first != 1 || object.seen & 2))
    return scan_fault(scan, PROBLEM_INVALID_PARAMETER, "one_hot goes with one column and no scale");
  return true;
}

static bool read_id_column(struct scan *scan, struct csv_plan *plan) {
  static const char *const column_names[] = {"column"};
  struct scan_object object = {.what = names[IDS], .names = column_names, .count = 1};
  double number = 0;
  if (!scan_open(scan, '{')) return false;
  int member;
  while ((member = scan_member(scan, &object)) >= 0)
    if (!scan_whole(scan, 0, (double)ATTN_MAX_DIM, &number)) return false;
  if (member == SCAN_FAULT) return false;
  if (object.seen == 0) return scan_missing(scan, &object, 0);
  plan->has_ids = true;
  plan->id_column = (size_t)number;
  return true;
}

/* ---- Memories ---- */

struct parsing {
  struct scan scan;
  const char *folder;
  struct preload_list *list;
  size_t capacity;
};

/* Columns of the one file, or a file of their own. */
static bool read_rows_of(struct parsing *parsing, int member, struct preload *preload) {
  struct scan *scan = &parsing->scan;
  struct spec *spec = preload->spec;
  const bool values = member == VALUES;
  if (scan_kind(scan) == SCAN_STRING)
    return read_npy_path(scan, parsing->folder, values ? &spec->values_path : &spec->keys_path);
  return read_columns(scan, values, values ? &spec->plan.values : &spec->plan.keys);
}

static bool read_member(struct parsing *parsing, int member, struct preload *preload) {
  struct scan *scan = &parsing->scan;
  struct spec *spec = preload->spec;
  switch (member) {
  case NAME:
    return read_name(scan, &preload->name);
  case PATH:
    return read_path(scan, parsing->folder, &preload->path, spec);
  case ROWS:
    return read_range(scan, 0x1p53, &spec->plan.first_row, &spec->plan.end_row);
  case KEYS:
  case VALUES:
    return read_rows_of(parsing, member, preload);
  case IDS:
    return read_id_column(scan, &spec->plan);
  case SCORE:
    return spec_read_score(scan, NULL, &spec->override.score);
  default:
    return spec_read_normalization(scan, &spec->override.normalization);
  }
}

static bool misplaced(struct scan *scan, unsigned member, const char *why) {
  scan_enter_name(scan, names[member]);
  return scan_fault(scan, PROBLEM_INVALID_PARAMETER, "%s", why);
}

/* Two files of arrays; nothing in them is to be chosen. */
static bool check_npy(struct scan *scan, const struct scan_object *object,
                      struct preload *preload) {
  struct spec *spec = preload->spec;
  if (object->seen >> PATH & 1)
    return misplaced(scan, PATH, "the rows come from .npy files, or from this one");
  for (unsigned member = KEYS; member <= VALUES; member++) {
    if (!(object->seen >> member & 1)) return scan_missing(scan, object, member);
    if (!(member == KEYS ? spec->keys_path : spec->values_path))
      return misplaced(scan, member, "expected a file that ends in .npy");
  }
  spec->format = NPY;
  preload->path = spec->keys_path;
  spec->keys_path = NULL;
  return true;
}

/* What the members have to do with one another. */
static bool check_preload(struct scan *scan, const struct scan_object *object,
                          struct preload *preload) {
  const struct spec *spec = preload->spec;
  if (!(object->seen >> NAME & 1)) return scan_missing(scan, object, NAME);
  if (spec->keys_path || spec->values_path) {
    if (!check_npy(scan, object, preload)) return false;
  } else if (!(object->seen >> PATH & 1)) {
    return scan_missing(scan, object, PATH);
  }
  for (unsigned member = ROWS; member <= IDS; member++) {
    const bool given = object->seen >> member & 1, columns = member == KEYS || member == VALUES;
    if (given && spec->format != CSV && !(spec->format == NPY && columns))
      return misplaced(scan, member, "this goes with .csv files alone");
    if (!given && spec->format == CSV && columns) return scan_missing(scan, object, member);
  }
  const struct csv_columns *keys = &spec->plan.keys;
  if (spec->format != CSV || !spec->override.score ||
      attn_score_query_dim(spec->override.score, keys->end - keys->first) > 0)
    return true;
  scan_enter_name(scan, names[SCORE]);
  return scan_fault(scan, PROBLEM_SHAPE_MISMATCH, "its matrices do not fit keys of %zu numbers",
                    keys->end - keys->first);
}

static bool check_name(struct scan *scan, const struct preload_list *list, const char *name) {
  for (size_t i = 0; i + 1 < list->count; i++)
    if (strcmp(list->items[i].name, name) == 0) {
      scan_enter_name(scan, names[NAME]);
      return scan_fault(scan, PROBLEM_INVALID_NAME, "\"%s\" is loaded by memories/%zu already",
                        name, i);
    }
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
  struct scan_object object = {.what = "a memory to load", .names = names, .count = MEMBERS};
  struct preload *preload = push_preload(parsing);
  if (!preload) return problem_set_status(scan->problem, ATTN_NO_MEMORY, "");
  if (!scan_open(scan, '{')) return false;
  int member;
  while ((member = scan_member(scan, &object)) >= 0)
    if (!read_member(parsing, member, preload)) return false;
  return member == SCAN_CLOSED && check_preload(scan, &object, preload) &&
         check_name(scan, parsing->list, preload->name);
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
