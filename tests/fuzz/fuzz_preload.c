/* Any bytes as a file that the operator names. The first byte chooses which:
 * the configuration, the option `memories`, a CSV file. What must be true:
 *
 *  - the configuration is taken exactly where jansson sees an object without
 *    null and without \u0000 in texts, and each value is what jansson has;
 *  - an option that is taken names memories as the contract has it;
 *  - of a CSV file without quotes, what is read is what splitting it at commas
 *    and strtof() give; of any, rows, numbers and ids go together. */
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "codec/config_file.h"
#include "codec/csv.h"
#include "fuzz.h"

/* A file in memory, and a path to it. */
struct scratch {
  int descriptor;
  char path[64];
};

static struct scratch make_scratch(const char *text, size_t length) {
  struct scratch scratch = {.descriptor = memfd_create("input", MFD_CLOEXEC)};
  REQUIRE(scratch.descriptor >= 0);
  REQUIRE(write(scratch.descriptor, text, length) == (ssize_t)length);
  snprintf(scratch.path, sizeof scratch.path, "/proc/self/fd/%d", scratch.descriptor);
  return scratch;
}

/* ---- The configuration ---- */

struct members {
  const json_t *tree;
  size_t count;
};

static bool see_member(void *context, const char *name, const char *value, char *error,
                       size_t error_size) {
  (void)error;
  (void)error_size;
  struct members *members = context;
  members->count++;
  const json_t *expected = json_object_get(members->tree, name);
  if (!expected) return true; /* the tree may be missing: see below */
  if (json_is_string(expected)) {
    REQUIRE(strcmp(json_string_value(expected), value) == 0);
    return true;
  }
  json_t *got = json_loads(value, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
  REQUIRE(got && json_equal(got, expected));
  json_decref(got);
  return true;
}

/* What config_file_read() should say of the tree; names that its buffer cuts
 * are unknown options. */
static bool is_config(const json_t *tree) {
  const char *name;
  json_t *value;
  if (!json_is_object(tree)) return false;
  json_object_foreach((json_t *)tree, name, value) {
    if (strlen(name) > 254 || json_is_null(value)) return false;
    if (json_is_string(value) && strlen(json_string_value(value)) != json_string_length(value))
      return false;
  }
  return true;
}

static void read_config(const char *text, size_t length) {
  struct scratch scratch = make_scratch(text, length);
  json_error_t load_error;
  json_t *tree = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL,
                            &load_error);
  struct members members = {.tree = tree};
  char error[256] = "";
  bool read = config_file_read(scratch.path, see_member, &members, error, sizeof error);
  enum json_error_code code = tree ? json_error_unknown : json_error_code(&load_error);
  bool limit = code == json_error_numeric_overflow || code == json_error_null_byte_in_key ||
               code == json_error_stack_overflow || strstr(error, "nested deeper than");
  if (memchr(text, '\0', length)) /* jansson overlooks one behind a number */
    REQUIRE(!read);
  else if (!limit)
    REQUIRE(read == (tree && is_config(tree)));
  if (read && tree) REQUIRE(members.count == json_object_size(tree));
  if (!read) REQUIRE(strncmp(error, scratch.path, strlen(scratch.path)) == 0);
  json_decref(tree);
  close(scratch.descriptor);
}

/* ---- The option ---- */

static void read_option(const char *text, size_t length) {
  char *json = strndup(text, length);
  REQUIRE(json != NULL);
  struct preload_list list;
  char error[256] = "";
  if (preload_parse(json, "folder", &list, error, sizeof error)) {
    for (size_t i = 0; i < list.count; i++) {
      size_t name_length = strlen(list.items[i].name);
      REQUIRE(name_length >= 1 && name_length <= 128 && list.items[i].name[0] != '.');
      REQUIRE(list.items[i].path[0] == '/' || strncmp(list.items[i].path, "folder/", 7) == 0);
    }
  } else {
    REQUIRE(strncmp(error, "memories", 8) == 0 && list.count == 0);
  }
  preload_free(&list);
  free(json);
}

/* ---- CSV ---- */

/* The value of a field between commas, found without the code under test. */
static float field_value(const char *line, size_t column) {
  for (; column > 0; column--)
    line = strchr(line, ',') + 1;
  return strtof(line, NULL);
}

/* The next line that is not empty; NULL at the end. */
static char *next_line(char **rest) {
  char *line;
  do {
    line = strsep(rest, "\n");
    size_t length = line ? strlen(line) : 0;
    if (length > 0 && line[length - 1] == '\r') line[length - 1] = '\0';
  } while (line && *line == '\0');
  return line;
}

/* Every row again, the last one first: only a header may be left over. */
static void check_rows(char *text, const struct csv_rows *rows) {
  char *lines[4096], *rest = text;
  size_t count = 0;
  if (strncmp(rest, "\xEF\xBB\xBF", 3) == 0) rest += 3;
  while (count < 4096 && (lines[count] = next_line(&rest)))
    count++;
  if (count == 4096) return;
  REQUIRE(count == rows->keys.rows || count == rows->keys.rows + 1);
  for (size_t row = 0; row < rows->keys.rows; row++) {
    const char *line = lines[count - rows->keys.rows + row];
    for (size_t column = 0; column < 2; column++)
      REQUIRE(rows->keys.data[row * 2 + column] == field_value(line, column));
    REQUIRE(rows->values.data[row] == (float)(2.0 * (double)field_value(line, 2)));
  }
}

static void read_csv(const char *text, size_t length, bool ids) {
  const struct csv_plan plan = {.end_row = SIZE_MAX,
                                .keys = {.first = 0, .end = 2, .scale = 1},
                                .values = {.first = 2, .end = 3, .scale = 2},
                                .has_ids = ids,
                                .id_column = 3};
  struct scratch scratch = make_scratch(text, length);
  struct csv_rows rows;
  char error[256] = "";
  if (csv_read(scratch.path, &plan, &rows, error, sizeof error)) {
    REQUIRE(rows.keys.rows >= 1 && rows.keys.rows == rows.values.rows);
    REQUIRE(rows.keys.cols == 2 && rows.values.cols == 1);
    REQUIRE(id_list_count(rows.ids) == (ids ? rows.keys.rows : 0));
    for (size_t i = 0; i < rows.keys.rows; i++)
      REQUIRE(isfinite(rows.keys.data[2 * i]) && isfinite(rows.values.data[i]));
    char *copy = strndup(text, length);
    REQUIRE(copy != NULL);
    if (strlen(copy) == length && !strchr(copy, '"')) check_rows(copy, &rows);
    free(copy);
    matrix_free(&rows.keys);
    matrix_free(&rows.values);
    id_list_free(rows.ids);
  } else {
    REQUIRE(strncmp(error, scratch.path, strlen(scratch.path)) == 0);
  }
  close(scratch.descriptor);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  const char *text = (const char *)data + 1;
  size_t length = size - 1;
  switch (data[0]) {
  case 'c':
    read_config(text, length);
    break;
  case 'o':
    read_option(text, length);
    break;
  default:
    read_csv(text, length, data[0] == 'i');
  }
  return 0;
}
